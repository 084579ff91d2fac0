"""The whole pipeline on secured servers: each process as a user of its own, by TLS alone, with the least rights."""

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError
from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError

from infra.local.certificates import Authority
from infra.local.ports import HOST, free_port
from infra.local.secure import SecureServers
from infra.local.tls import TlsFront
from infra.processes import Processes
from schemas.events import Label, Transaction
from services.init.__main__ import main as init
from services.rights.__main__ import main as rights
from services.rights.table import table, user
from streams.runtime.topics import KafkaUnavailable, record_counts
from streams.stores.cql import CqlSession
from streams.stores.history import StoreUnreachable
from streams.usecases import FRAUD
from tests.integration.secured import (
    EVENTS,
    PARTITIONS,
    PASSWORD,
    PATIENCE,
    PLAIN,
    TLS_ALERT,
    TOPICS,
    answer,
    environment,
    listening,
    readable,
    scored,
    send,
    settings,
    speaks_tls,
)
from tests.local import within

pytestmark = [pytest.mark.integration, pytest.mark.local]

SERVICES = ("worker", "history", "learner")

Run = Callable[..., int]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureServers]:
    """Secured servers with every service's user, the topics and tables, and the rights as they are granted anywhere."""
    passwords = {user(FRAUD, service): f"{PASSWORD}{service}" for service in table(FRAUD, PARTITIONS)}
    with SecureServers(tmp_path_factory.mktemp("secure"), passwords) as servers, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(servers).items():
            patch.setenv(name, value)
        assert init(["fraud"]) == 0
        assert rights(["fraud"]) == 0
        yield servers


@pytest.fixture
def processes(servers: SecureServers, tmp_path: Path) -> Iterator[Processes]:
    """Children that are given nothing but what their settings say."""
    with Processes(tmp_path, {"HEADRACE_MODEL_KEY": "k" * 32, "HEADRACE_PARTITIONS": str(PARTITIONS)}) as processes:
        yield processes


def test_events_are_scored_and_learnt_from_and_nothing_travels_in_clear(
    servers: SecureServers, processes: Processes
) -> None:
    """Worker, history and learner work together, each with its own user; all their connections are TLS."""
    for service in SERVICES:
        processes.start(service, f"services.{service}", "fraud", environment=environment(servers, service))
    processes.wait_ready(PATIENCE)
    now = int(time.time() * 1000)
    ids = [f"e{number}" for number in range(EVENTS)]
    send(servers, "producer", TOPICS.events.name, *(Transaction(id_, now, "c1", "t1", 20.0) for id_ in ids))
    assert scored(servers) == set(ids), record_counts(settings(servers).kafka, TOPICS)
    send(servers, "feedback", TOPICS.labels.name, *(Label(id_, now, 1) for id_ in ids))
    assert within(PATIENCE, lambda: asyncio.run(readable(servers, "operator", TOPICS.models.name)) > 0)

    ports = {server.port for server in servers.servers}
    for process in processes.all:
        connections = psutil.Process(process.popen.pid).net_connections("tcp")
        elsewhere = {one.raddr.port for one in connections if one.status == psutil.CONN_ESTABLISHED and one.raddr}
        assert elsewhere
        assert elsewhere <= ports
    processes.check()
    assert not any(PASSWORD in process.log.read_text() for process in processes.all)


def test_no_server_listens_in_clear(servers: SecureServers) -> None:
    """On every port of theirs, the controller's and Cassandra's own among them, TLS is spoken and nothing else."""
    ports = listening(servers) | {server.port for server in servers.servers}
    assert len(ports) >= 5  # Kafka's two, Cassandra's two, and TLS in front of Valkey, which itself has none
    for port in ports:
        assert speaks_tls(port), port
        for question in PLAIN.values():
            assert answer(port, question)[:1] in (b"", TLS_ALERT), port


@pytest.mark.parametrize(
    ("service", "topic"),
    [
        ("producer", TOPICS.scores), ("producer", TOPICS.events), ("consumer", TOPICS.labels),
        ("worker", TOPICS.examples), ("learner", TOPICS.events), ("feedback", TOPICS.labels),
    ],
)  # fmt: skip
def test_nobody_reads_what_is_not_theirs(servers: SecureServers, service: str, topic: Any) -> None:
    """A producer may not read scores, nor any service a topic that the table does not give it."""
    send(servers, "", topic.name, Label("e", 1, 1))
    with suppress(TopicAuthorizationFailedError):  # a topic that it may not even see looks empty
        assert asyncio.run(readable(servers, service, topic.name)) == 0
    assert asyncio.run(readable(servers, "", topic.name)) > 0


@pytest.mark.parametrize(
    ("service", "topic"),
    [
        ("producer", TOPICS.scores), ("producer", TOPICS.labels), ("consumer", TOPICS.scores),
        ("worker", TOPICS.models), ("history", TOPICS.scores), ("learner", TOPICS.examples),
    ],
)  # fmt: skip
def test_nobody_writes_what_is_not_theirs(servers: SecureServers, service: str, topic: Any) -> None:
    """A service may not touch another's topics."""
    with pytest.raises(KafkaUnavailable, match=r"HEADRACE_KAFKA_USER: .* does not allow"):
        send(servers, service, topic.name, Label("e", 1, 1))


def test_nobody_takes_part_in_another_group(servers: SecureServers) -> None:
    """Who reads scores cannot move where the pipeline is, nor look at it."""
    with pytest.raises(GroupAuthorizationFailedError):
        asyncio.run(readable(servers, "consumer", TOPICS.scores.name, "fraud-stages"))


def test_in_redis_the_worker_has_its_states_and_nothing_else(servers: SecureServers) -> None:
    """Others have no right there at all; nobody but the administrator sees other keys or empties it."""
    with Redis.from_url(settings(servers, "worker").redis) as redis:
        assert redis.hget("{fraud.customer.0.0}:none", "a") is None
        for forbidden in (("HGET", "{ctr.user.0.0}:x", "a"), ("FLUSHALL",), ("KEYS", "*"), ("CONFIG", "GET", "*")):
            with pytest.raises(NoPermissionError):
                redis.execute_command(*forbidden)
        with pytest.raises(ResponseError, match="ACL"):
            redis.register_script("return redis.call('DEL', KEYS[1])")(["{fraud.customer.0.0}:none"])
    for service in "history", "learner", "producer":
        with Redis.from_url(settings(servers, service).redis) as redis, pytest.raises(NoPermissionError):
            redis.ping()


@pytest.mark.parametrize(
    ("service", "allowed", "forbidden"),
    [
        ("history", "SELECT * FROM headrace.scores LIMIT 1", "SELECT * FROM headrace.entity_states LIMIT 1"),
        ("worker", "SELECT * FROM headrace.entity_states LIMIT 1", "SELECT * FROM headrace.scores LIMIT 1"),
        ("operator", "SELECT * FROM headrace.models LIMIT 1", "TRUNCATE headrace.models"),
    ],
)
def test_in_cassandra_a_service_has_its_tables(
    servers: SecureServers, service: str, allowed: str, forbidden: str
) -> None:
    """What a service does not keep it neither reads nor empties, and nobody but the administrator makes tables."""
    session = CqlSession(settings(servers, service).cassandra, print)
    session.connect([])
    try:
        session.run([allowed])
        for statement in forbidden, "DROP TABLE headrace.scores", "CREATE TABLE headrace.mine (k int PRIMARY KEY)":
            with pytest.raises(StoreUnreachable, match=rf"HEADRACE_CASSANDRA_USER: .*fraud-{service}"):
                session.run([statement])
    finally:
        asyncio.run(session.close())


@pytest.fixture(scope="module")
def expired(servers: SecureServers) -> Iterator[str]:
    """An address where the servers' own authority vouches for a certificate that was valid until yesterday."""
    front = TlsFront(port := free_port(), servers.authority.issue("expired", timedelta(days=-1)), Path("/nowhere"))
    front.start()
    yield f"{HOST}:{port}"
    front.stop()


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The certificate of an authority that vouches for none of the servers."""
    return str(Authority.made(tmp_path_factory.mktemp("stranger")).path)


NOT_TOLD = dict.fromkeys(["HEADRACE_KAFKA_USER", "HEADRACE_KAFKA_PASSWORD", "HEADRACE_KAFKA_CA"], "")
NOBODY = dict.fromkeys(["HEADRACE_CASSANDRA_USER", "HEADRACE_CASSANDRA_PASSWORD"], "")

WRONG: dict[str, tuple[Run, dict[str, str], str]] = {
    # what is wrong: the command, its settings, what is told
    "kafka, the password": (init, {"HEADRACE_KAFKA_PASSWORD": "x"}, "HEADRACE_KAFKA_PASSWORD: .* not let admin in"),
    "kafka, the user": (init, {"HEADRACE_KAFKA_USER": "eve"}, "HEADRACE_KAFKA_USER, .* does not let eve in"),
    "kafka, no password": (init, {"HEADRACE_KAFKA_PASSWORD": ""}, "HEADRACE_KAFKA_PASSWORD: is not set"),
    "kafka, no user": (
        init, NOT_TOLD | {"HEADRACE_KAFKA_SECURITY": "tls", "HEADRACE_KAFKA_CA": "{ca}"}, "HEADRACE_KAFKA_SECURITY: "
    ),
    "kafka, another authority": (
        init, {"HEADRACE_KAFKA_CA": "{stranger}"}, "HEADRACE_KAFKA_CA: the certificate .* is refused: "
    ),
    "kafka, expired": (
        init, {"HEADRACE_KAFKA": "{expired}"}, "HEADRACE_KAFKA_CA: the certificate .* has expired"
    ),
    "cassandra, the password": (
        init, {"HEADRACE_CASSANDRA_PASSWORD": "x"}, "HEADRACE_CASSANDRA_PASSWORD: .* does not let admin in"
    ),
    "cassandra, no password": (
        init, {"HEADRACE_CASSANDRA_PASSWORD": ""}, "HEADRACE_CASSANDRA_PASSWORD: is not set"
    ),
    "cassandra, no user": (init, NOBODY, "HEADRACE_CASSANDRA_USER, .* wants to know the user"),
    "cassandra, in clear": (init, NOBODY | {"HEADRACE_CASSANDRA_CA": ""}, "HEADRACE_CASSANDRA_CA is not set"),
    "cassandra, another authority": (
        init, {"HEADRACE_CASSANDRA_CA": "{stranger}"}, "HEADRACE_CASSANDRA_CA: the certificate .* is refused: "
    ),
    "cassandra, expired": (
        init, {"HEADRACE_CASSANDRA": "{expired}"}, "HEADRACE_CASSANDRA_CA: the certificate .* has expired"
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_refused_by_its_name(
    servers: SecureServers,
    expired: str,
    stranger: str,
    wrong: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line that names the setting, and an exit code that is not 0; no password in it."""
    command, changed, told = WRONG[wrong]
    given = environment(servers)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    for name, value in changed.items():
        text = value.format(ca=servers.authority.path, stranger=stranger, expired=expired)
        monkeypatch.setenv(name, text)
    assert command(["fraud"]) != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(told, line), line
    assert given["HEADRACE_KAFKA_PASSWORD"] not in line


def test_processes_end_where_their_login_is_wrong(servers: SecureServers, processes: Processes, stranger: str) -> None:
    """Each long-running process tells in a line which of its settings the server refuses, and ends."""
    url, ca = environment(servers, "worker")["HEADRACE_REDIS"], str(servers.authority.path)
    cases = [
        ("worker", {"HEADRACE_REDIS": url.replace(PASSWORD, "x")}, "HEADRACE_REDIS: .* does not allow"),
        ("worker", {"HEADRACE_REDIS": url.replace(ca, stranger)}, "HEADRACE_REDIS: the certificate .* is refused"),
        ("history", {"HEADRACE_CASSANDRA_PASSWORD": "x"}, "HEADRACE_CASSANDRA_PASSWORD: .* does not let fraud-history"),
        ("learner", {"HEADRACE_KAFKA_PASSWORD": "x"}, "HEADRACE_KAFKA_PASSWORD: .* does not let fraud-learner"),
    ]
    for number, (service, changed, _) in enumerate(cases):
        given = environment(servers, service) | changed
        processes.start(f"{service}-{number}", f"services.{service}", "fraud", environment=given)
    assert within(PATIENCE, lambda: not any(process.alive for process in processes.all))
    for process, (_, _, told) in zip(processes.all, cases, strict=True):
        assert process.popen.returncode in (1, 2)
        log = process.log.read_text()
        assert re.search(told, log.splitlines()[-1]), log
        assert "Traceback" not in log
        assert PASSWORD not in log
    processes.all.clear()
