"""Settings: one frozen object, read from the environment once at the door; a wrong one fails there by name."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from streams.settings.access import PLAINTEXT, Cassandra, CassandraAccess, Kafka, KafkaAccess
from streams.settings.parsing import TEN_YEARS, copies, deployment, host, instance, key, name, port, positive, yes_or_no
from streams.settings.reading import SettingsError, read, setting
from streams.settings.redis_url import REDIS_OPTIONS, redis_url

__all__ = ["REDIS_OPTIONS", "Cassandra", "CassandraAccess", "Kafka", "KafkaAccess", "Settings", "SettingsError"]


@dataclass(frozen=True)
class Settings:
    """Where the servers are and how the pipeline runs; seconds and milliseconds as the names say.

    `instance` makes the process a static member of its consumer groups (KIP-345): restarted within `session_seconds`
    it has its partitions again, without a rebalance. `deployment` and `publish` are explained in
    infra/decisions/0011-deployments.md. Without `label_horizon_seconds` the use case's horizon counts.

    `redis` is a server, redis://USER:PASSWORD@HOST:PORT/DB, or some nodes of a Redis Cluster (the others are asked of
    them), redis+cluster://USER:PASSWORD@HOST:PORT,HOST:PORT; rediss:// and rediss+cluster:// travel by TLS.
    `replication` is of how many brokers each topic that is made here is kept by, -1 for what the brokers have by
    default; a majority of them must be there to write.
    """

    kafka: KafkaAccess = field(default_factory=KafkaAccess)
    redis: str = setting("HEADRACE_REDIS", redis_url, "redis://127.0.0.1:6379/0", secret=True)
    cassandra: CassandraAccess = field(default_factory=CassandraAccess)
    keyspace: str = setting("HEADRACE_KEYSPACE", name, "headrace")
    deployment: str = setting("HEADRACE_DEPLOYMENT", deployment, "")
    instance: str = setting("HEADRACE_INSTANCE", instance, "")
    publish: bool = setting("HEADRACE_PUBLISH", yes_or_no, False)
    model_key: bytes = setting("HEADRACE_MODEL_KEY", key, b"", secret=True)
    replication: int = setting("HEADRACE_REPLICATION", copies, -1)
    partitions: int = setting("HEADRACE_PARTITIONS", positive(int, 65_536), 4)
    checkpoint_seconds: float = setting("HEADRACE_CHECKPOINT_SECONDS", positive(float), 1.0)
    snapshot_seconds: float = setting("HEADRACE_SNAPSHOT_SECONDS", positive(float), 2.0)
    entity_snapshot_seconds: float = setting("HEADRACE_ENTITY_SNAPSHOT_SECONDS", positive(float), 300.0)
    session_seconds: float = setting("HEADRACE_SESSION_SECONDS", positive(float, 86_400), 10.0)
    label_wait_seconds: float = setting("HEADRACE_LABEL_WAIT_SECONDS", positive(float), 30.0)
    label_horizon_seconds: float | None = setting("HEADRACE_LABEL_HORIZON_SECONDS", positive(float), None)
    watermark_wait_seconds: float = setting("HEADRACE_WATERMARK_WAIT_SECONDS", positive(float), 60.0)
    max_ahead_ms: int = setting("HEADRACE_MAX_AHEAD_MS", positive(int, 1000 * TEN_YEARS), 86_400_000)
    max_entities: int = setting("HEADRACE_MAX_ENTITIES", positive(int, 10**12), 1_000_000)
    stall_seconds: float = setting("HEADRACE_STALL_SECONDS", positive(float), 60.0)
    metrics_host: str = setting("HEADRACE_METRICS_HOST", host, "127.0.0.1")
    metrics_port: int = setting("HEADRACE_METRICS_PORT", port, 0)
    feedback_host: str = setting("HEADRACE_FEEDBACK_HOST", host, "127.0.0.1")
    feedback_port: int = setting("HEADRACE_FEEDBACK_PORT", port, 8090)
    feedback_token: bytes = setting("HEADRACE_FEEDBACK_TOKEN", key, b"", secret=True)

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Settings":
        """Return the settings in `environment`; what is absent has its default.

        Raises SettingsError that names the variable.

        >>> Settings.read({"HEADRACE_PARTITIONS": "8"}).partitions
        8
        """
        return read(cls, environment)

    @property
    def tls(self) -> bool:
        """Whether Kafka or Redis is reached by TLS; Cassandra's driver has threads of its own."""
        return self.kafka.security != PLAINTEXT or self.redis.startswith("rediss")

    def signing_key(self) -> bytes:
        """Return the key that signs model snapshots; raise SettingsError where none was given."""
        if not self.model_key:
            raise SettingsError("HEADRACE_MODEL_KEY: is not set (32 characters or more, it signs the models)")
        return self.model_key
