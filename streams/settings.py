"""Settings: one frozen object, read from the environment once at the door; a wrong one fails there by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from math import inf
from re import ASCII, fullmatch
from typing import Any
from urllib.parse import parse_qsl, urlsplit


class SettingsError(ValueError):
    """A setting is missing or wrong; the message names the variable."""


def _positive(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        value = kind(text)
        if not 0 < value < inf:
            raise ValueError("must be more than 0 and finite")
        return value

    return parse


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError("must be a port, 0 to 65535")
    return port


def _host(text: str) -> str:
    if not fullmatch(r"[\w-]{1,63}(\.[\w-]{1,63})*|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*", text, ASCII):
        raise ValueError("must be the host or address to listen at, without a port")
    return text


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("must be HOST:PORT")
    _port(port)
    return text


def _addresses(text: str) -> str:
    return ",".join(_address(part.strip()) for part in text.split(","))


NUMBER, TEXT = r"\d+(\.\d+)?", r".+"
REDIS_OPTIONS = {
    "db": r"\d+",
    "max_connections": r"[1-9]\d*",
    "health_check_interval": r"\d+",
    "socket_timeout": NUMBER,
    "socket_connect_timeout": NUMBER,
    "client_name": TEXT,
    "ssl_ca_certs": TEXT,
    "ssl_certfile": TEXT,
    "ssl_keyfile": TEXT,
    "ssl_cert_reqs": "none|optional|required",
    "ssl_check_hostname": "True|False",
}
"""What may follow the `?` of a Redis URL, each with what its value must look like."""


def _redis_url(text: str) -> str:
    """Refuse here what redis-py would only when it connects.

    No message repeats any of it: a password with a `/`, `?` or `#` in it may be taken for any part.
    """
    try:
        parts = urlsplit(text)
        _ = parts.port
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ValueError("is no URL: a wrong host, port or option (a password must be percent-encoded)") from None
    if parts.scheme not in ("redis", "rediss", "unix") or not text.startswith(f"{parts.scheme}://"):
        raise ValueError("must be a URL that begins with redis://, rediss:// or unix://")
    if parts.scheme == "unix":
        if len(parts.path) < 2:
            raise ValueError("must name the socket: unix:///PATH")
    elif not parts.hostname or not fullmatch(r"/?|/\d+/?", parts.path):
        raise ValueError("must be redis://HOST:PORT/DB (a password must be percent-encoded)")
    if "#" in text or not all(fullmatch(REDIS_OPTIONS.get(name, "(?!)"), value) for name, value in options):
        raise ValueError(f"has a wrong option; there are {', '.join(REDIS_OPTIONS)}")
    if parts.scheme != "rediss" and any(name.startswith("ssl_") for name, _ in options):
        raise ValueError("has ssl_ options, which are for rediss:// alone")
    return text


def _name(text: str) -> str:
    if not (text.isascii() and text.replace("_", "").isalnum() and text[0].isalpha() and len(text) <= 48):
        raise ValueError("must be letters, digits and underscores, 48 at most, a letter first")
    return text


def _deployment(text: str) -> str:
    if not fullmatch(r"([a-z][a-z0-9-]{0,31})?", text):
        raise ValueError("must be small letters, digits and hyphens, 32 at most, a letter first")
    return text


def _instance(text: str) -> str:
    if not fullmatch(r"[A-Za-z0-9._-]{0,63}", text, ASCII):
        raise ValueError("must be letters, digits, dots, hyphens and underscores, 63 at most")
    return text


def _yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError("must be yes or no")
    return text == "yes"


def _key(text: str) -> bytes:
    if len(text) < 32:
        raise ValueError("must have at least 32 characters")
    return text.encode()


def _setting(variable: str, parse: Callable[[str], Any], default: Any, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"variable": variable, "parse": parse})


@dataclass(frozen=True)
class Settings:
    """Where the servers are and how the pipeline runs; seconds and milliseconds as the names say.

    `kafka` may name several brokers, with commas between them. `instance` makes the process a static member of its
    consumer groups (KIP-345): restarted within `session_seconds` it has its partitions again, without a rebalance.
    `deployment` and `publish` are explained in
    infra/decisions/0011-deployments.md. Without `label_horizon_seconds` the use case's horizon counts.
    """

    kafka: str = _setting("HEADRACE_KAFKA", _addresses, "127.0.0.1:9092")
    redis: str = _setting("HEADRACE_REDIS", _redis_url, "redis://127.0.0.1:6379/0", secret=True)
    cassandra: str = _setting("HEADRACE_CASSANDRA", _address, "127.0.0.1:9042")
    keyspace: str = _setting("HEADRACE_KEYSPACE", _name, "headrace")
    deployment: str = _setting("HEADRACE_DEPLOYMENT", _deployment, "")
    instance: str = _setting("HEADRACE_INSTANCE", _instance, "")
    publish: bool = _setting("HEADRACE_PUBLISH", _yes_or_no, False)
    model_key: bytes = _setting("HEADRACE_MODEL_KEY", _key, b"", secret=True)
    partitions: int = _setting("HEADRACE_PARTITIONS", _positive(int), 4)
    checkpoint_seconds: float = _setting("HEADRACE_CHECKPOINT_SECONDS", _positive(float), 0.5)
    snapshot_seconds: float = _setting("HEADRACE_SNAPSHOT_SECONDS", _positive(float), 2.0)
    entity_snapshot_seconds: float = _setting("HEADRACE_ENTITY_SNAPSHOT_SECONDS", _positive(float), 300.0)
    session_seconds: float = _setting("HEADRACE_SESSION_SECONDS", _positive(float), 10.0)
    label_wait_seconds: float = _setting("HEADRACE_LABEL_WAIT_SECONDS", _positive(float), 30.0)
    label_horizon_seconds: float | None = _setting("HEADRACE_LABEL_HORIZON_SECONDS", _positive(float), None)
    watermark_wait_seconds: float = _setting("HEADRACE_WATERMARK_WAIT_SECONDS", _positive(float), 60.0)
    max_ahead_ms: int = _setting("HEADRACE_MAX_AHEAD_MS", _positive(int), 86_400_000)
    max_entities: int = _setting("HEADRACE_MAX_ENTITIES", _positive(int), 1_000_000)
    stall_seconds: float = _setting("HEADRACE_STALL_SECONDS", _positive(float), 60.0)
    metrics_host: str = _setting("HEADRACE_METRICS_HOST", _host, "127.0.0.1")
    metrics_port: int = _setting("HEADRACE_METRICS_PORT", _port, 0)
    feedback_host: str = _setting("HEADRACE_FEEDBACK_HOST", _host, "127.0.0.1")
    feedback_port: int = _setting("HEADRACE_FEEDBACK_PORT", _port, 8090)
    feedback_token: bytes = _setting("HEADRACE_FEEDBACK_TOKEN", _key, b"", secret=True)

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Settings":
        """Return the settings in `environment`; what is absent has its default.

        Raises SettingsError that names the variable.

        >>> Settings.read({"HEADRACE_PARTITIONS": "8"}).partitions
        8
        """
        values: dict[str, Any] = {}
        for spec in fields(cls):
            variable = spec.metadata["variable"]
            if (text := environment.get(variable)) is None:
                continue
            try:
                values[spec.name] = spec.metadata["parse"](text)
            except ValueError as error:
                raise SettingsError(f"{variable}: {error}") from None
        return cls(**values)

    def signing_key(self) -> bytes:
        """Return the key that signs model snapshots; raise SettingsError where none was given."""
        if not self.model_key:
            raise SettingsError("HEADRACE_MODEL_KEY: is not set (32 characters or more, it signs the models)")
        return self.model_key
