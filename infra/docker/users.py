"""`python -m infra.docker.users fraud`: the users of docker-compose.secure.yml, each with its password on all servers.

It runs in a container, before `services.rights`: a user that is there gets the password that .env says now, and keeps
its rights. The administrator comes to Kafka with a certificate, to Valkey with a password, and to a new Cassandra as
the user that each of them has, which goes then.
"""

import argparse
import logging
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable, Mapping

from cassandra import DriverException
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import Cluster, NoHostAvailable, Session
from kafka import KafkaAdminClient
from kafka.admin import UserScramCredentialUpsertion
from kafka.errors import KafkaError
from redis import Redis, RedisError

ADMIN = "admin"
USERS = ("worker", "history", "learner", "matured", "feedback", "simulator", "operator", "producer", "consumer")
FOLDER = "/etc/headrace"
AUTHORITY, CERTIFICATE = f"{FOLDER}/authority.pem", f"{FOLDER}/{ADMIN}.pem"
KAFKA, VALKEY, CASSANDRA = ("kafka", 9095), ("valkey", 6379), ("cassandra", 9042)
WELL_KNOWN = "cassandra"  # the user, and its password, that a new Cassandra has, some seconds after it answers
PATIENCE = 60.0


class UsersError(Exception):
    """A server does not let the administrator do it; the message is for people."""


def password_of(user: str) -> str:
    """Return the variable that holds a user's password.

    >>> password_of("worker")
    'WORKER_PASSWORD'
    """
    return f"{user.upper()}_PASSWORD"


def main(arguments: list[str] | None = None) -> int:
    """Do it; the exit code is 1, after a line that says why, where it cannot be done."""
    usecase = _parser().parse_args(arguments).usecase
    passwords = {f"{usecase}-{user}": os.environ[password_of(user)] for user in USERS}
    admin = os.environ[password_of(ADMIN)]
    steps: dict[tuple[str, int], Callable[[], None]] = {
        VALKEY: lambda: _in_valkey(passwords, admin),
        KAFKA: lambda: _in_kafka({ADMIN: admin, **passwords}),
        CASSANDRA: lambda: _in_cassandra(passwords, admin),
    }
    for server, step in steps.items():
        try:
            _verify(*server)
            step()
        except (UsersError, OSError, RedisError, KafkaError, DriverException, NoHostAvailable) as error:
            print(f"users: {server[0]}: {error}", file=sys.stderr)
            return 1
    print(f"users: {', '.join([ADMIN, *passwords])}")
    return 0


def _verify(host: str, port: int) -> None:
    """Raise UsersError unless the server shows a certificate that holds: the clients below would not say it clearly."""
    try:
        with socket.create_connection((host, port), 10) as plain:
            _tls().wrap_socket(plain, server_hostname=host).close()
    except ssl.SSLCertVerificationError as error:
        raise UsersError(f"its certificate is refused: {error.verify_message}") from None


def _in_valkey(passwords: Mapping[str, str], admin: str) -> None:
    host, port = VALKEY
    with Redis(host, port, username=ADMIN, password=admin, ssl=True, ssl_ca_certs=AUTHORITY) as client:
        for user, password in passwords.items():
            client.execute_command("ACL SETUSER", user, "on", "resetpass", f">{password}")
        client.execute_command("ACL SAVE")


def _in_kafka(passwords: Mapping[str, str]) -> None:
    tls = _tls()
    tls.load_cert_chain(CERTIFICATE)
    host, port = KAFKA
    admin = KafkaAdminClient(bootstrap_servers=f"{host}:{port}", security_protocol="SSL", ssl_context=tls)
    try:
        wanted = [UserScramCredentialUpsertion(user, "SCRAM-SHA-512", word) for user, word in passwords.items()]
        failed = {user: why for user, why in admin.alter_user_scram_credentials(wanted).items() if why}
    finally:
        admin.close()
    if failed:
        raise UsersError(str(failed))


def _in_cassandra(passwords: Mapping[str, str], admin: str) -> None:
    logging.getLogger("cassandra").setLevel(logging.CRITICAL)  # of attempts that are expected to fail
    deadline = time.monotonic() + PATIENCE
    while not _appointed(passwords, admin):
        if time.monotonic() > deadline:
            raise UsersError(f"does not let {ADMIN} in: is ADMIN_PASSWORD the one that it was first given?")
        time.sleep(1)


def _appointed(passwords: Mapping[str, str], admin: str) -> bool:
    """Whether the administrator was let in and all are there; makes the administrator in a new Cassandra."""
    for user, password in ((ADMIN, admin), (WELL_KNOWN, WELL_KNOWN)):
        cluster = _cluster(user, password)
        try:
            session = cluster.connect()
            if user == ADMIN:
                _appoint(session, passwords)
                session.execute(f"DROP ROLE IF EXISTS {WELL_KNOWN}")
                return True
            session.execute(
                f"CREATE ROLE IF NOT EXISTS {ADMIN} WITH PASSWORD = '{admin}' AND LOGIN = true AND SUPERUSER = true"
            )
        except NoHostAvailable:
            continue
        finally:
            cluster.shutdown()
    return False


def _appoint(session: Session, passwords: Mapping[str, str]) -> None:
    there = {row.role for row in session.execute("LIST ROLES")}
    for user, password in passwords.items():
        verb = "ALTER" if user in there else "CREATE"
        session.execute(f"{verb} ROLE \"{user}\" WITH PASSWORD = '{password}' AND LOGIN = true")


def _cluster(user: str, password: str) -> Cluster:
    host, port = CASSANDRA
    return Cluster(
        [host],
        port=port,
        ssl_context=_tls(),
        ssl_options={"server_hostname": host},
        auth_provider=PlainTextAuthProvider(user, password),
    )


def _tls() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=AUTHORITY)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.docker.users", description=__doc__)
    parser.add_argument("usecase")
    return parser


if __name__ == "__main__":
    sys.exit(main())
