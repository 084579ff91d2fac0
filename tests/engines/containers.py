"""The servers in containers, by testcontainers' own modules for them."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from os import getpid
from pathlib import Path

import docker
import psutil
from docker.errors import NotFound
from kafka import KafkaAdminClient
from kafka.errors import KafkaError
from redis import Redis, RedisError
from testcontainers.community.cassandra import CassandraContainer
from testcontainers.community.kafka import KafkaContainer
from testcontainers.community.redis import RedisContainer
from testcontainers.core.config import ConnectionMode, testcontainers_config
from testcontainers.core.container import DockerContainer

from infra.local.cql import cluster_name
from infra.local.kafka import BEHAVIOUR
from infra.local.ports import HOST, answers, free_port

from . import images

OWNER = "headrace.tests"  # the label that says whose a container is: `host:pid`
START_TIMEOUT = 120  # seconds
POLL = 0.1  # seconds

testcontainers_config.ryuk_disabled = True  # it is another image to pull; `sweep` does its work
testcontainers_config.connection_mode_override = ConnectionMode.docker_host
testcontainers_config.tc_host_override = HOST
testcontainers_config.sleep_time = POLL
testcontainers_config.max_tries = round(START_TIMEOUT / POLL)


class Contained:
    """A server in a container, on a port of the loopback address that stays the same."""

    def __init__(self, container: DockerContainer, inner: int, answering: Callable[[int], bool]) -> None:
        self.port = free_port()
        container.ports = {str(inner): (HOST, self.port)}
        self._container = container
        self._answering = answering

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        return f"redis://{self.address}/0"

    def kill(self) -> None:
        self._container.get_wrapped_container().kill()
        self._container.get_wrapped_container().wait(timeout=30)

    def stop(self) -> None:
        self._container.get_wrapped_container().stop(timeout=20)

    def start(self) -> None:
        self._container.get_wrapped_container().start()

    def wait_healthy(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not (answers(self.port) and self._answering(self.port)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._container.image} does not answer:\n{self._last_lines()}")
            time.sleep(POLL)

    def suspend(self) -> None:
        self._container.get_wrapped_container().pause()

    def resume(self) -> None:
        self._container.get_wrapped_container().unpause()

    def _last_lines(self) -> str:
        return str(self._container.get_wrapped_container().logs(tail=12).decode(errors="replace"))


class Containers:
    """Servers in containers of the Docker engine that answers; what a dead run has left is removed first."""

    name = "containers"

    def __init__(self) -> None:
        client = images.engine()
        assert client is not None
        self._client = client
        sweep(client)

    @contextmanager
    def kafka(self, folder: Path) -> Iterator[Contained]:
        container = KafkaContainer(self._image("kafka"), labels=_labels()).with_kraft()
        for name, value in BEHAVIOUR.items():
            container.with_env("KAFKA_" + name.upper().replace(".", "_"), str(value))
        container.with_env("KAFKA_HEAP_OPTS", "-Xms256m -Xmx512m")
        container.with_env("KAFKA_JVM_PERFORMANCE_OPTS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
        start = partial(container.start, timeout=START_TIMEOUT)
        with _running(container, container.port, _kafka_answers, start) as server:
            yield server

    @contextmanager
    def valkey(self, folder: Path, save: str = "") -> Iterator[Contained]:
        container = RedisContainer(self._image("valkey"), labels=_labels())
        # Clients come over the bridge, so none of them is local.
        options = ["--save", save, "--enable-debug-command", "yes", "--protected-mode", "no"]
        container.with_command(["redis-server", *options])
        with _running(container, container.port, _valkey_answers) as server:
            yield server

    @contextmanager
    def cassandra(self, folder: Path) -> Iterator[Contained]:
        container = CassandraContainer(self._image("cassandra"), labels=_labels())
        container.with_env("CASSANDRA_NUM_TOKENS", "1")  # the module gives it one initial token
        container.with_env("MAX_HEAP_SIZE", "512M")
        container.with_env("JVM_OPTS", container.env["JVM_OPTS"] + " -XX:TieredStopAtLevel=1")
        with _running(container, container.CQL_PORT, lambda port: cluster_name(port) is not None) as server:
            yield server

    def _image(self, server: str) -> str:
        name = images.image(self._client, server)
        assert name is not None, images.obstacle()
        return name


@contextmanager
def _running(
    container: DockerContainer, inner: int, answering: Callable[[int], bool], start: Callable[[], object] | None = None
) -> Iterator[Contained]:
    server = Contained(container, inner, answering)
    try:
        (start or container.start)()
        server.wait_healthy()
        yield server
    finally:
        container.stop()


def sweep(client: docker.DockerClient) -> int:
    """Remove the containers whose test run on this machine is over; how many there were."""
    left = 0
    for container in client.containers.list(all=True, filters={"label": OWNER}, ignore_removed=True):
        host, _, pid = container.labels[OWNER].rpartition(":")
        if host == socket.gethostname() and not psutil.pid_exists(int(pid)):
            with suppress(NotFound):  # another run sweeps too
                container.remove(force=True, v=True)
            left += 1
    return left


def owner(pid: int) -> str:
    """What the label of a container says that belongs to a process of this machine."""
    return f"{socket.gethostname()}:{pid}"


def _labels() -> dict[str, str]:
    return {OWNER: owner(getpid())}


def _kafka_answers(port: int) -> bool:
    try:
        admin = KafkaAdminClient(bootstrap_servers=f"{HOST}:{port}", request_timeout_ms=5000)
    except KafkaError:
        return False
    try:
        return bool(admin.describe_cluster()["brokers"])
    except KafkaError:
        return False
    finally:
        admin.close()


def _valkey_answers(port: int) -> bool:
    try:
        with Redis(host=HOST, port=port, socket_timeout=2) as client:
            return bool(client.ping())
    except RedisError:  # not up, or loading its snapshot
        return False
