"""The same servers as in production: TLS alone, users with passwords, and nothing allowed that is not granted.

The certificates are made on the spot, for this machine. `ADMIN` may do everything; whoever else there is has no right
at all until it is given one.
"""

import ssl
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from secrets import token_hex
from typing import Any

import redis

from .certificates import ADMIN, SERVER, Authority, Keys
from .kafka import Kafka, render_config
from .ports import free_port
from .secure_cassandra import SecureCassandra
from .stack import NAMES, LocalServers, stack_identity
from .tls import TlsFront
from .valkey import Valkey


class SecureServers(LocalServers):
    """Kafka, Valkey and Cassandra that know the users of `passwords`, letters and digits by name."""

    def __init__(self, folder: Path, passwords: Mapping[str, str], only: Iterable[str] = NAMES) -> None:
        super().__init__(folder, only)
        self.authority = Authority.made(self.folder)
        users = {ADMIN: token_hex(16), **passwords}
        keys = Keys(users, self.authority.path, self.authority.issue(SERVER))
        identity = stack_identity(self.folder)
        self.kafka: SecureKafka = SecureKafka(self.folder, identity, keys)
        self.valkey: SecureValkey = SecureValkey(self.folder, identity, keys)
        self.cassandra: SecureCassandra = SecureCassandra(self.folder, identity, keys)
        self._keys = keys

    def environment(self, user: str = ADMIN) -> dict[str, str]:
        """The chosen servers' addresses and what that user proves itself with, as the services read them."""
        password, ca = self._keys.users[user], str(self.authority.path)
        redis_url = self.valkey.url.replace("rediss://", f"rediss://{user}:{password}@")
        by_server = {
            "kafka": {
                "HEADRACE_KAFKA": self.kafka.address,
                "HEADRACE_KAFKA_SECURITY": "sasl_tls",
                "HEADRACE_KAFKA_USER": user,
                "HEADRACE_KAFKA_PASSWORD": password,
                "HEADRACE_KAFKA_CA": ca,
            },
            "valkey": {"HEADRACE_REDIS": redis_url},
            "cassandra": {
                "HEADRACE_CASSANDRA": self.cassandra.address,
                "HEADRACE_CASSANDRA_USER": user,
                "HEADRACE_CASSANDRA_PASSWORD": password,
                "HEADRACE_CASSANDRA_CA": ca,
            },
        }
        return {name: value for server in self.only for name, value in by_server[server].items()}


class SecureKafka(Kafka):
    """A broker that speaks SCRAM-SHA-512 over TLS; the controller, TLS with a certificate of both sides."""

    def __init__(self, root: Path, identity: str, keys: Keys) -> None:
        super().__init__(root, identity)
        self._keys = keys
        self.formatting = [
            argument
            for user, password in keys.users.items()
            for argument in ("--add-scram", f"SCRAM-SHA-512=[name={user},password={password}]")
        ]

    def properties(self, data: Path) -> str:
        """The text of server.properties."""
        login = f'username="{ADMIN}" password="{self._keys.users[ADMIN]}"'
        module = "org.apache.kafka.common.security.scram.ScramLoginModule"
        return render_config(
            self.port,
            free_port(),
            data,
            {
                "listener.security.protocol.map": "BROKER:SASL_SSL,CONTROLLER:SSL",
                "sasl.enabled.mechanisms": "SCRAM-SHA-512",
                "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
                "listener.name.broker.scram-sha-512.sasl.jaas.config": f"{module} required {login};",
                "listener.name.controller.ssl.client.auth": "required",
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": self._keys.certificate,
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": self._keys.authority,
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": f"User:{ADMIN};User:CN={SERVER}",
            },
        )

    def client(self) -> dict[str, Any]:
        """How the administrator's client is opened."""
        return {
            "bootstrap_servers": self.address,
            "security_protocol": "SASL_SSL",
            "ssl_context": ssl.create_default_context(cafile=self._keys.authority),
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": ADMIN,
            "sasl_plain_password": self._keys.users[ADMIN],
        }


class SecureValkey(Valkey):
    """A Valkey that listens on a Unix socket of this user's alone, with TLS in front: the wheel's is built without."""

    def __init__(self, root: Path, identity: str, keys: Keys) -> None:
        super().__init__(root, identity)
        self._keys = keys
        self._front: TlsFront | None = None

    @property
    def url(self) -> str:
        """Where clients reach it, as a Redis URL without a user."""
        return f"rediss://{self.address}/0?ssl_ca_certs={self._keys.authority}"

    @property
    def socket(self) -> Path:
        """The Unix socket; beside the folders of the tests its name would be too long."""
        return Path(tempfile.gettempdir()) / f"headrace-{self.port}.sock"

    def settings(self) -> str:
        """The text of valkey.conf."""
        return super().settings() + (
            f'port 0\nunixsocket "{self.socket}"\nunixsocketperm 700\naclfile "{self.folder / "users.acl"}"\n'
        )

    def start(self, *options: str) -> None:
        """Start the server, and TLS in front of it."""
        if self.alive:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        rights = {user: "+@all ~* &*" if user == ADMIN else "-@all" for user in self._keys.users}
        lines = [f"user {user} on >{password} {rights[user]}" for user, password in self._keys.users.items()]
        (self.folder / "users.acl").write_text("\n".join(["user default off", *lines, ""]), encoding="utf-8")
        super().start(*options)
        self._front = TlsFront(self.port, self._keys.certificate, self.socket)
        self._front.start()

    def answering(self) -> str | None:
        """The pid of the server that answers."""
        try:
            with redis.Redis.from_url(
                self.url, username=ADMIN, password=self._keys.users[ADMIN], socket_timeout=2
            ) as client:
                info = client.info("server")
        except redis.RedisError:
            return None
        return f"pid {info['process_id']}"

    def stop(self) -> None:
        """Stop both."""
        super().stop()
        self._end()

    def kill(self) -> None:
        """Kill the server; TLS goes with it."""
        super().kill()
        self._end()

    def _end(self) -> None:
        if self._front:
            self._front.stop()
            self._front = None
        self.socket.unlink(missing_ok=True)
