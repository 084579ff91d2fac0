"""A Cassandra with roles and TLS."""

import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import Cluster, NoHostAvailable, Session

from .cassandra import Cassandra
from .certificates import ADMIN, Keys
from .ports import HOST
from .server import START_TIMEOUT

WELL_KNOWN = "cassandra"  # the user, and its password, that a new Cassandra has
PATIENCE = 10.0  # seconds, for a node that has just started


class SecureCassandra(Cassandra):
    """A Cassandra with roles, and TLS for clients and between nodes."""

    def __init__(self, root: Path, identity: str, keys: Keys) -> None:
        super().__init__(root, identity)
        self._keys = keys

    def config(self) -> str:
        """The text of cassandra.yaml."""
        shown = (
            "ssl_context_factory: {class_name: org.apache.cassandra.security.PEMBasedSslContextFactory}, "
            f"keystore: '{self._keys.certificate}', truststore: '{self._keys.authority}'"
        )
        return super().config() + (
            "authenticator: {class_name: PasswordAuthenticator}\n"
            "authorizer: {class_name: CassandraAuthorizer}\n"
            "role_manager: {class_name: CassandraRoleManager}\n"
            f"client_encryption_options: {{enabled: true, optional: false, {shown}}}\n"
            f"server_encryption_options: {{internode_encryption: all, optional: false, {shown}}}\n"
        )

    def options(self) -> list[str]:
        """What the Java runtime is started with: users at once, and passwords hashed as quickly as may be."""
        quick = {"superuser_setup_delay_ms": 0, "auth_bcrypt_gensalt_log2_rounds": 4}
        return [*super().options(), *(f"-Dcassandra.{name}={value}" for name, value in quick.items())]

    def answering(self) -> str | None:
        """The name of the cluster that answers."""
        with suppress(NoHostAvailable), self._session(ADMIN, self._keys.users[ADMIN]) as session:
            return str(session.cluster.metadata.cluster_name)
        with suppress(NoHostAvailable), self._session(WELL_KNOWN, WELL_KNOWN) as session:
            self._appoint(session, ADMIN, superuser=True)
        return None

    def wait_healthy(self, timeout: float = START_TIMEOUT) -> None:
        """Wait until it answers, and there is nobody but the users."""
        super().wait_healthy(timeout)
        with self._session(ADMIN, self._keys.users[ADMIN]) as session:
            for user in self._keys.users:
                self._appoint(session, user)
            session.execute(f"DROP ROLE IF EXISTS {WELL_KNOWN}")

    def _appoint(self, session: Session, user: str, superuser: bool = False) -> None:
        session.execute(
            f'CREATE ROLE IF NOT EXISTS "{user}" WITH LOGIN = true AND SUPERUSER = {superuser} '
            f"AND PASSWORD = '{self._keys.users[user]}'"
        )

    @contextmanager
    def _session(self, user: str, password: str) -> Iterator[Session]:
        """A session inside the block; raises NoHostAvailable."""
        logging.getLogger("cassandra").setLevel(logging.CRITICAL)  # of attempts that are expected to fail
        tls = ssl.create_default_context(cafile=self._keys.authority)
        with Cluster(
            [HOST],
            port=self.port,
            ssl_context=tls,
            auth_provider=PlainTextAuthProvider(user, password),
            connect_timeout=PATIENCE,
            control_connection_timeout=PATIENCE,
        ) as one:
            yield one.connect()
