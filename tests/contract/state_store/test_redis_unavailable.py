"""A Redis that cannot be reached, hangs or cannot serve for now: named without its password, and waited for."""

import asyncio
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from infra.local.ports import free_port
from streams.stores import redis_nodes
from streams.stores.redis import RedisStateStore
from streams.stores.state import Checkpoint, StoreUnavailable
from tests.contract.state_store.shared import TTL_MS, as_worker, changed
from tests.local import within


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def unavailable(url: str) -> str:
    """What a store at `url` says when it is asked for anything."""

    async def ask() -> None:
        store = RedisStateStore(url, TTL_MS)
        try:
            await store.claim("p")
        finally:
            await store.close()

    with pytest.raises(StoreUnavailable) as caught:
        asyncio.run(asyncio.wait_for(ask(), 10))
    return str(caught.value)


def test_an_unreachable_redis_is_named() -> None:
    """Nobody listens: one line names the address, at once."""
    address = f"127.0.0.1:{free_port()}"
    assert unavailable(f"redis://{address}/0").startswith(f"Redis at {address} does not answer")


def test_a_redis_that_hangs_is_named_within_the_time_out(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that says nothing is given up after the socket's time-out, not waited for."""
    monkeypatch.setattr(redis_nodes, "SOCKET_SECONDS", 0.3)
    began = time.monotonic()
    assert unavailable(f"redis://{silent}/0").startswith(f"Redis at {silent} does not answer")
    assert time.monotonic() - began < 5


def test_the_password_is_not_told() -> None:
    """The line that names the address leaves the credentials out."""
    address = f"127.0.0.1:{free_port()}"
    said = unavailable(f"redis://user:hush@{address}/0")
    assert address in said
    assert "hush" not in said


def test_an_unreachable_cluster_is_named() -> None:
    """Of several nodes nobody listens: the line names them all, and no password."""
    addresses = f"127.0.0.1:{free_port()},127.0.0.1:{free_port()}"
    said = unavailable(f"redis+cluster://user:hush@{addresses}")
    assert said.startswith(f"no node of the Redis Cluster at {addresses} tells its slots")
    assert "hush" not in said


@pytest.mark.integration
@pytest.mark.local("a cluster is local processes")
def test_one_node_that_answers_is_enough(silent: str, valkey_cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the nodes that a URL names one is gone and one hangs: the cluster is found by the third, for grants too."""
    monkeypatch.setattr(redis_nodes, "SOCKET_SECONDS", 0.3)
    third = valkey_cluster.rpartition(",")[2]
    url = as_worker(f"redis+cluster://127.0.0.1:{free_port()},{third}")

    async def scenario() -> None:
        store = RedisStateStore(url.replace("@", f"@{silent},"), TTL_MS)
        await store.ping()
        partition = f"fraud.customer.{uuid4().hex}.0"
        assert (await store.claim(partition)).epoch == 1
        await store.close()

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_one_server_is_no_cluster(valkey_server: str) -> None:
    """Who names a single Redis as a cluster is told that it is none."""
    address = urlsplit(valkey_server).netloc
    said = unavailable(f"redis+cluster://{address}")
    assert said.startswith(f"no node of the Redis Cluster at {address} tells its slots")
    assert "cluster support disabled" in said


@contextmanager
def busy(url: str) -> Iterator[None]:
    """A Redis that runs somebody's endless script inside the block, and answers nothing else."""
    with Redis.from_url(url) as redis, Redis.from_url(url) as endless, ThreadPoolExecutor(1) as apart:

        def refuses() -> bool:
            try:
                redis.ping()
            except ResponseError as error:
                return str(error).startswith("BUSY")
            return False

        (usual,) = redis.config_get("busy-reply-threshold").values()
        redis.config_set("busy-reply-threshold", 1)
        running = apart.submit(endless.eval, "while true do end", 0)
        try:
            assert within(10, refuses)
            yield
        finally:
            redis.script_kill()
            assert "killed" in str(running.exception(10))
            redis.config_set("busy-reply-threshold", usual)


def test_a_redis_that_is_busy_is_waited_for(valkey_server: str) -> None:
    """It passes, whatever is asked just then: the archive's pages as well."""
    partition = f"fraud.customer.{uuid4().hex}.0"

    async def scenario() -> None:
        store = RedisStateStore(valkey_server, TTL_MS)
        epoch = (await store.claim(partition)).epoch
        await store.save(partition, epoch, Checkpoint(1, b""), [(b"a", b"1")])
        with busy(valkey_server):
            with pytest.raises(StoreUnavailable, match="BUSY"):
                await store.load(partition, epoch, [b"a"])
            with pytest.raises(StoreUnavailable, match="BUSY"):
                await store.changed(partition, epoch, recent=True)
        assert await changed(store, partition, epoch, recent=True) == {b"a"}
        await store.close()

    asyncio.run(asyncio.wait_for(scenario(), 30))


@pytest.mark.parametrize(
    "reply",
    [
        "READONLY You can't write against a read only replica.",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "NOREPLICAS Not enough good replicas to write.",
        "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
        "CLUSTERDOWN The cluster is down",
        "LOADING Redis is loading the dataset in memory",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "BUSY Redis is busy running a script.",
    ],
)
def test_a_redis_that_cannot_serve_for_now_is_waited_for(reply: str) -> None:
    """What passes by itself (a failover, a full memory, a start) is no fault: claims, loads and saves may be tried
    again."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            for _ in range(2 * int(line[1:])):  # of each argument its size, then itself
                await reader.readline()
            writer.write(f"-{reply}\r\n".encode())
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        store = RedisStateStore(f"redis://{address}/0", TTL_MS)
        for ask in (
            lambda: store.claim("p"),
            lambda: store.load("p", 1, [b"a"]),
            lambda: store.save("p", 1, Checkpoint(1, b""), [(b"a", b"1")]),
        ):
            with pytest.raises(StoreUnavailable, match=f"Redis at {address} does not"):
                await ask()
        await store.close()
        server.close()

    asyncio.run(asyncio.wait_for(scenario(), 20))
