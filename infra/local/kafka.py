"""Apache Kafka: one process that is broker and controller."""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from .errors import LocalServerError
from .java import java
from .ports import HOST, free_port
from .server import Server

MAX_MESSAGE = 8 * 1024 * 1024  # bytes; a value of 2 MB must get through, to be refused by the pipeline

BEHAVIOUR = {
    "auto.create.topics.enable": "false",
    "default.replication.factor": 1,
    "min.insync.replicas": 1,
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 8,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 4,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 1000,
    "message.max.bytes": MAX_MESSAGE,
    "replica.fetch.max.bytes": MAX_MESSAGE,
    # After a crash the broker may return only when its last session is over.
    "broker.heartbeat.interval.ms": 500,
    "broker.session.timeout.ms": 2000,
    "num.network.threads": 2,
    "num.io.threads": 4,
    "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,  # of the heap; 128 MB by default
}
"""What our use of a broker asks of it, wherever it runs."""

LOG4J = """\
Configuration:
  status: error
  Appenders:
    Console: {name: out, PatternLayout: {pattern: "%d %p %m (%c)%n%throwable"}}
  Loggers:
    Root: {level: WARN, AppenderRef: {ref: out}}
    Logger:
      - {name: kafka.server, level: INFO}
      - {name: org.apache.kafka.coordinator.group, level: INFO}
"""


def render_config(port: int, controller_port: int, data: Path, more: Mapping[str, object] | None = None) -> str:
    """The text of server.properties for a single node, or for another with `more` settings."""
    settings = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "listeners": f"BROKER://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "BROKER",
        "log.dirs": data,
        **BEHAVIOUR,
        **(more or {}),
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())


class Kafka(Server):
    """One Kafka broker; `identity` is its cluster id."""

    name = "kafka"
    formatting: Sequence[str] = ()  # options of the first start

    def prepare(self) -> list[str]:
        """Write server.properties, and format the data folder on the first start."""
        config = self.folder / "server.properties"
        data = self.folder / "data"
        (self.folder / "log4j2.yaml").write_text(LOG4J, encoding="utf-8")
        config.write_text(self.properties(data), encoding="utf-8")
        if not (data / "meta.properties").exists():
            self._format(config, data)
        return [*self._java("-Xms384m", "-Xmx512m", "-Xmn256m", lasting=self.lasting), "kafka.Kafka", str(config)]

    def properties(self, data: Path) -> str:
        """The text of server.properties."""
        return render_config(self.port, free_port(), data)

    def client(self) -> dict[str, Any]:
        """How a client is opened that may see the cluster."""
        return {"bootstrap_servers": self.address}

    def answering(self) -> str | None:
        """The cluster id of the broker that answers and has registered."""
        try:
            admin = KafkaAdminClient(**self.client(), request_timeout_ms=5000)
        except KafkaError:
            return None
        try:
            cluster = admin.describe_cluster()
        except KafkaError:
            return None
        finally:
            admin.close()
        return str(cluster["cluster_id"]) if cluster["brokers"] else None

    def _java(self, *options: str, lasting: bool = False) -> list[str]:
        log4j = f"-Dlog4j2.configurationFile={self.folder / 'log4j2.yaml'}"
        # G1 pauses for longer than an event takes (decision 0006).
        return java(self.name, self.folder, *options, "-XX:+UseParallelGC", log4j, lasting=lasting)

    def _format(self, config: Path, data: Path) -> None:
        shutil.rmtree(data, ignore_errors=True)  # left by a format that was cut short
        arguments = [
            "kafka.tools.StorageTool",
            "format",
            "--cluster-id",
            self.identity,
            "--config",
            str(config),
            *self.formatting,
        ]
        result = subprocess.run(
            [*self._java("-Xmx128m"), *arguments],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if result.returncode:
            raise LocalServerError(f"kafka: formatting {data} failed: {result.stdout}{result.stderr}".strip())
