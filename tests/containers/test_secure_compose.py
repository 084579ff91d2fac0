"""docker-compose.secure.yml brought up: who is let in, and what can be seen on the network. They run in their order."""

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError
from redis.exceptions import ConnectionError as RedisConnectionError

from infra.docker import certificates
from infra.docker.env import PASSWORDS
from infra.docker.users import ADMIN, USERS, WELL_KNOWN, password_of
from infra.local.certificates import Authority
from infra.local.ports import HOST
from schemas.events import Score
from streams.runtime.connection import connection
from streams.runtime.refusal import refusal
from streams.settings import CassandraAccess, Settings
from streams.stores.cql import CqlSession
from streams.stores.history import StoreUnreachable
from tests.containers.compose import Stack
from tests.containers.sniffer import NAMES, Direction, Sniffer, is_tls, streams

pytestmark = [pytest.mark.containers("make compose-test brings docker-compose.yml up"), pytest.mark.timeout(600)]

SERVERS = {"kafka": 9092, "valkey": 6379, "cassandra": 9042}
ENOUGH = 200  # scores


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole secured system with live payments; there is its network, and nothing has started yet."""
    stack = Stack(f"headrace-test-{os.getpid()}-secure", tmp_path_factory.mktemp("secure"))
    stack.write_env("--secure", COMPOSE_PROFILES="demo")
    stack.build()
    try:
        # This one waits for no other: docker-compose 1.29 would wait for those that never start.
        done = stack.compose("up", "--no-start", "valkey")
        assert done.returncode == 0, done.stderr
        yield stack
    finally:
        stack.down()
    assert stack.left() == {}


@pytest.fixture(scope="module")
def sniffer(stack: Stack) -> Iterator[Sniffer | None]:
    """Every byte on the network, from before the first container starts; None where that cannot be seen."""
    with ExitStack() as ended:
        try:
            yield ended.enter_context(Sniffer(stack.bridge()))
        except OSError:
            yield None


def settings(stack: Stack, user: str, password: str = "", ca: str = "") -> Settings:
    """What a program on this machine would be started with as that user."""
    name, password = full(user), password or stack.env[password_of(user)]
    ca = ca or f"{stack.env['CERTIFICATES']}/authority.pem"
    return Settings.read(
        {
            "HEADRACE_KAFKA": f"{HOST}:{stack.ports['KAFKA_PORT']}",
            "HEADRACE_KAFKA_SECURITY": "sasl_tls",
            "HEADRACE_KAFKA_USER": name,
            "HEADRACE_KAFKA_PASSWORD": password,
            "HEADRACE_KAFKA_CA": ca,
            "HEADRACE_REDIS": f"rediss://{name}:{password}@{HOST}:{stack.ports['VALKEY_PORT']}/0?ssl_ca_certs={ca}",
            "HEADRACE_CASSANDRA": f"{HOST}:{stack.ports['CASSANDRA_PORT']}",
            "HEADRACE_CASSANDRA_USER": name,
            "HEADRACE_CASSANDRA_PASSWORD": password,
            "HEADRACE_CASSANDRA_CA": ca,
        }
    )


def full(user: str) -> str:
    return user if user == ADMIN else f"fraud-{user}"


async def read(stack: Stack, user: str, seconds: float = 60) -> list[bytes]:
    """The first scores, as a user gets them within so many seconds; raises KafkaError."""
    consumer = AIOKafkaConsumer(**connection(settings(stack, user).kafka), auto_offset_reset="earliest")
    await consumer.start()
    found: list[bytes] = []
    deadline = time.monotonic() + seconds
    try:
        consumer.assign([TopicPartition("fraud.scores", partition) for partition in range(4)])
        while len(found) < ENOUGH and time.monotonic() < deadline:
            fetched = await consumer.getmany(timeout_ms=500)
            found += [one.value for some in fetched.values() for one in some]
    finally:
        await consumer.stop()
    return found


async def come_in(where: Settings) -> None:
    """Be let in to Kafka; raises KafkaConnectionError."""
    client = AIOKafkaClient(**connection(where.kafka))
    try:
        await client.bootstrap()
    finally:
        await client.close()


def come_in_to_redis(where: Settings) -> None:
    """Be let in to Redis, with or without rights; raises RedisError."""
    with Redis.from_url(where.redis) as redis, suppress(NoPermissionError):
        redis.ping()


def come_in_to_cassandra(where: CassandraAccess) -> None:
    """Be let in to Cassandra; raises StoreUnreachable."""
    session = CqlSession(where, print)
    session.connect([])
    asyncio.run(session.close())


def test_all_is_healthy(stack: Stack, sniffer: Sniffer | None) -> None:
    """One command brings everything up, users and rights included."""
    print(f"healthy after {stack.up():.0f} s, seen on the network: {sniffer is not None}")
    assert {*SERVERS, "init", "worker", "learner", "history", "matured", "feedback", "simulator"} == {*stack.states()}


def test_live_payments_are_scored(stack: Stack) -> None:
    """Whoever may read scores gets them on this machine, by TLS."""
    found = [msgspec.json.decode(value, type=Score) for value in asyncio.run(read(stack, "consumer"))]
    assert len(found) >= ENOUGH
    assert all(0 <= score.score <= 1 for score in found)


def test_nothing_travels_in_clear(stack: Stack, sniffer: Sniffer | None) -> None:
    """All that went to or came from the three servers since the first of them started is TLS, from its first byte on,
    but what this test sends them in clear: so it would have been seen."""
    if sniffer is None:
        pytest.skip("the network cannot be listened to here: it takes root's rights on the engine's own machine")
    addresses = {network["IPAddress"]: name for name, network in networks(stack).items()}
    servers = {address for address, name in addresses.items() if name in SERVERS}
    on_purpose = {sent_in_clear(address, SERVERS[addresses[address]]) for address in servers}
    sniffer.stop()
    assert sniffer.dropped == 0
    segments = [one for one in sniffer.segments() if servers & {place for place, _ in one.direction}]
    seen = list(streams(segments))
    pairs = {(addresses.get(source), addresses.get(target)) for ((source, _), (target, _)), _ in seen}
    assert pairs >= {
        *(("worker", server) for server in SERVERS),
        *(("history", server) for server in ("kafka", "cassandra")),
        *((service, "kafka") for service in ("learner", "matured", "feedback", "simulator")),
    }
    assert {direction for direction, stream in seen if not is_tls(stream)} == on_purpose

    def told(payload: bytes) -> bool:
        return any(name in payload for name in (*NAMES, *(stack.env[secret].encode() for secret in PASSWORDS)))

    assert {one.direction for one in segments if told(one.payload)} == on_purpose
    print(f"{len(seen)} streams, {sum(len(stream) for _, stream in seen) / 1e6:.1f} MB, {len(segments)} segments")


def networks(stack: Stack) -> dict[str, Any]:
    """Where each running container is on the network, by service."""
    running = {name: one for name, one in stack.containers().items() if one["State"]["Running"]}
    return {name: next(iter(one["NetworkSettings"]["Networks"].values())) for name, one in running.items()}


def sent_in_clear(address: str, port: int) -> Direction:
    """Say a topic's name to a server in clear; its answer is an alert or none at all."""
    with socket.create_connection((address, port), 10) as plain:
        direction = plain.getsockname(), plain.getpeername()
        plain.sendall(NAMES[0] + b"\r\n")
        plain.settimeout(10)
        with suppress(ConnectionError):
            assert plain.recv(1) in (b"", b"\x15")
        return direction


def test_a_producer_may_not_read_scores(stack: Stack) -> None:
    """Nor may a service to which the table of rights does not give them."""
    for user in "producer", "learner":
        with suppress(TopicAuthorizationFailedError):  # a topic that it may not even see looks empty
            assert asyncio.run(read(stack, user, seconds=5)) == []


@pytest.mark.parametrize("user", [ADMIN, *USERS])
def test_each_user_comes_in_with_its_password_alone(stack: Stack, user: str) -> None:
    """The right password is good for all three servers, a wrong one and another's for none."""
    right = settings(stack, user)
    asyncio.run(come_in(right))
    come_in_to_redis(right)
    come_in_to_cassandra(right.cassandra)
    for password in "wrong", stack.env[password_of("worker" if user != "worker" else ADMIN)]:
        wrong = settings(stack, user, password)
        with pytest.raises(KafkaConnectionError):
            asyncio.run(come_in(wrong))
        assert f"does not let {full(user)} in" in str(refusal(wrong.kafka))
        with pytest.raises(AuthenticationError):
            come_in_to_redis(wrong)
        with pytest.raises(StoreUnreachable, match=f"does not let {full(user)} in"):
            come_in_to_cassandra(wrong.cassandra)


def test_what_a_new_cassandra_lets_in_is_gone(stack: Stack) -> None:
    """Nobody comes in as the user that is in every handbook."""
    known = replace(settings(stack, ADMIN).cassandra, user=WELL_KNOWN, password=WELL_KNOWN)
    with pytest.raises(StoreUnreachable, match=f"does not let {WELL_KNOWN} in"):
        come_in_to_cassandra(known)


def test_another_authority_is_refused(stack: Stack, tmp_path: Path) -> None:
    """Who trusts somebody else does not talk to any of the three."""
    stranger = settings(stack, "worker", ca=str(Authority.made(tmp_path).path))
    assert "HEADRACE_KAFKA_CA: the certificate" in str(refusal(stranger.kafka))
    with pytest.raises(RedisConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
        come_in_to_redis(stranger)
    with pytest.raises(StoreUnreachable, match="HEADRACE_CASSANDRA_CA: the certificate"):
        come_in_to_cassandra(stranger.cassandra)


def test_an_expired_certificate_is_named(stack: Stack) -> None:
    """Whoever comes to the server says in a line what is wrong, and goes no further."""
    certificates.write(Path(stack.env["CERTIFICATES"]), timedelta(days=-1))
    assert stack.compose("up", "--detach", "--force-recreate", "--no-deps", "valkey").returncode == 0
    done = stack.compose("run", "--rm", "--no-deps", "-T", "init")
    assert done.returncode != 0
    assert "users: valkey: its certificate is refused: certificate has expired" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("missing", ["CERTIFICATES", *PASSWORDS])
def test_what_is_missing_is_named(missing: str, tmp_path: Path) -> None:
    """Without a password, or the certificates, compose starts nothing and says which it is."""
    stack = Stack(f"headrace-test-{os.getpid()}-missing", tmp_path)
    stack.write_env("--secure", **{missing: ""})
    done = stack.compose("up", "--detach")
    assert done.returncode != 0
    assert f"{missing} is not set, see .env.example" in done.stderr
    assert stack.left() == {}
