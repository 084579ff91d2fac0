"""What every state store does; memory is the reference, Redis (a real Valkey) must equal it, with a worker's rights."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import uuid4

import pytest

from infra.local.cluster import ValkeyCluster
from streams.stores.memory import MemoryStateStore
from streams.stores.redis import RedisStateStore
from streams.stores.state import StateStore, TrackingStore
from tests.contract.state_store.shared import TTL_MS, Damage, Run, Scenario, Snapshot, Wipe, as_worker, dump
from tests.local import redis_at

SERVERS = {"valkey": "valkey_server", "cluster": "valkey_cluster"}
"""The fixture of the URL of each."""


@pytest.fixture(
    params=[
        "memory",
        pytest.param("valkey", marks=pytest.mark.integration),
        pytest.param("cluster", marks=[pytest.mark.integration, pytest.mark.local("a cluster is local processes")]),
    ]
)
def kind(request: pytest.FixtureRequest) -> str:
    """Which store."""
    return str(request.param)


@pytest.fixture(scope="session")
def valkey_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running cluster of three masters."""
    with ValkeyCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster.url


@pytest.fixture
def run(request: pytest.FixtureRequest, kind: str) -> Run:
    """Run a scenario with a store and a partition of its own."""
    partition = f"fraud.customer.{uuid4().hex}.0"

    @asynccontextmanager
    async def opened() -> AsyncIterator[TrackingStore]:
        store: TrackingStore = MemoryStateStore()
        if kind != "memory":
            store = RedisStateStore(as_worker(request.getfixturevalue(SERVERS[kind])), TTL_MS)
        try:
            yield store
        finally:
            await store.close()

    async def scenario_on_store(scenario: Scenario) -> None:
        async with opened() as store:
            await asyncio.wait_for(scenario(store, partition), 30)

    return lambda scenario: asyncio.run(scenario_on_store(scenario))


@pytest.fixture
def snapshot(request: pytest.FixtureRequest, kind: str) -> Snapshot:
    """Bring a partition's keys back as they were, as a failover or an older snapshot does."""

    def of_memory(store: StateStore, partition: str) -> Callable[[], None]:
        assert isinstance(store, MemoryStateStore)
        kept = store.kept[partition]
        return lambda: store.kept.update({partition: kept})

    def of_valkey(_: StateStore, partition: str) -> Callable[[], None]:
        return dump(request.getfixturevalue(SERVERS[kind]), partition)

    return of_memory if kind == "memory" else of_valkey


@pytest.fixture
def wipe(request: pytest.FixtureRequest, kind: str) -> Wipe:
    """Delete everything of a partition, as FLUSHALL does."""

    def of_memory(store: StateStore, partition: str) -> None:
        assert isinstance(store, MemoryStateStore)
        del store.kept[partition]

    def of_valkey(_: StateStore, partition: str) -> None:
        with redis_at(request.getfixturevalue(SERVERS[kind])) as redis:
            redis.delete(*redis.scan_iter(f"{{{partition}}}*", count=10_000))

    return of_memory if kind == "memory" else of_valkey


@pytest.fixture
def damage(request: pytest.FixtureRequest, kind: str) -> Damage:
    """Change a partition's checkpoint behind the store's back."""

    def of_memory(store: StateStore, partition: str, change: Callable[[bytes], bytes]) -> None:
        assert isinstance(store, MemoryStateStore)
        kept = store.kept[partition]
        store.kept[partition] = replace(kept, record=change(kept.record or b""))

    def of_valkey(_: StateStore, partition: str, change: Callable[[bytes], bytes]) -> None:
        key = f"{{{partition}}}:checkpoint"
        with redis_at(request.getfixturevalue(SERVERS[kind])) as redis:
            redis.hset(key, "record", change(redis.hget(key, "record")))

    return of_memory if kind == "memory" else of_valkey
