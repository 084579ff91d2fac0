"""The state store while a Redis Cluster changes: masters die and come back, replicas take over, slots move."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from typing import TypeVar

import pytest
from redis.crc import key_slot

from infra.local.cluster import Member, ValkeyCluster
from streams.stores.redis import RedisStateStore
from streams.stores.state import Checkpoint, Fenced, StoreUnavailable
from tests.local import within

pytestmark = [pytest.mark.integration, pytest.mark.local("members of a cluster are killed as local processes")]

T = TypeVar("T")
TTL_MS = 60_000
PATIENCE = 40.0  # seconds for a failover, on a busy machine


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    """Three masters with a replica each; a test may kill a master for good."""
    with ValkeyCluster(tmp_path_factory.mktemp("cluster"), replicas=1) as running:
        yield running


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    """Three masters without replicas."""
    with ValkeyCluster(tmp_path_factory.mktemp("bare")) as running:
        yield running


numbers = count()


def slots_of(member: Member) -> list[tuple[int, int]]:
    """The slots that a member is the master of."""
    rows = member.asked("CLUSTER SLOTS")
    return [(first, last) for first, last, master, *_ in rows if master[1] == member.port]


def partition_at(member: Member) -> str:
    """A name, never given before, of a partition that this member is the master of."""
    ranges = slots_of(member)
    for number in numbers:
        name = f"fraud.customer.0123456789abcdef.{number}"
        if any(first <= key_slot(name.encode()) <= last for first, last in ranges):
            return name
    raise AssertionError


def pair(cluster: ValkeyCluster) -> tuple[Member, Member]:
    """A master and its replica."""
    for replica in (one for one in cluster.members if one.alive):
        role, *state = replica.asked("ROLE")
        if role == "slave":
            return next(one for one in cluster.members if one.port == state[1]), replica
    raise AssertionError


def cut_off(master: Member) -> bool:
    """Close what replicas have open to a master, and say whether none was left."""
    master.asked("CLIENT KILL", "TYPE", "replica")
    _, _, replicas = master.asked("ROLE")
    return not replicas


async def served(call: Callable[[], Awaitable[T]]) -> T:
    """What a call answers once Redis serves it, as a patient caller has it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return await call()
        except StoreUnavailable:
            assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


def run(scenario: Callable[[RedisStateStore], Awaitable[None]], url: str) -> None:
    """Run a scenario with a store."""

    async def scenario_on_store() -> None:
        store = RedisStateStore(url, TTL_MS)
        try:
            await scenario(store)
        finally:
            await store.close()

    asyncio.run(scenario_on_store())


def test_a_replica_takes_over_and_the_owner_goes_on(cluster: ValkeyCluster) -> None:
    """The master is killed for good: after the failover the owner saves on, and nothing that was kept is gone.

    A process that keeps nothing there sees Redis away until then, and not for ever.
    """
    master, replica = pair(cluster)
    partition, elsewhere = partition_at(master), partition_at(next(one for one in cluster.masters if one is not master))

    async def scenario(store: RedisStateStore) -> None:
        idle = RedisStateStore(cluster.url, TTL_MS)
        await idle.ping()
        epoch, other = (await store.claim(partition)).epoch, (await store.claim(elsewhere)).epoch
        await store.save(partition, epoch, Checkpoint(1, b""), [(b"a", b"1")])
        assert within(PATIENCE, lambda: bool(master.asked("WAIT", 1, 1000)))
        master.kill()
        with pytest.raises(StoreUnavailable, match=master.address):
            await store.load(partition, epoch, [b"a"])
        with pytest.raises(StoreUnavailable, match=master.address):
            await idle.ping()
        await store.save(elsewhere, other, Checkpoint(1, b""), [(b"b", b"1")])  # the others serve all the while
        assert await served(lambda: store.load(partition, epoch, [b"a"])) == [b"1"]
        await served(lambda: store.save(partition, epoch, Checkpoint(2, b""), [(b"a", b"2")]))
        await served(idle.ping)
        await idle.close()
        assert replica.asked("ROLE")[0] == "master"
        assert (await store.claim(partition)).checkpoint == Checkpoint(2, b"")

    run(scenario, cluster.url)


def test_a_replica_that_had_not_all_of_it_fences_the_owner(cluster: ValkeyCluster) -> None:
    """The replica was cut off before the last save: the owner is fenced, and its successor goes on from before."""
    master, replica = pair(cluster)
    partition = partition_at(master)

    async def scenario(store: RedisStateStore) -> None:
        epoch = (await store.claim(partition)).epoch
        await store.save(partition, epoch, Checkpoint(1, b""), [(b"a", b"1")])
        assert within(PATIENCE, lambda: bool(master.asked("WAIT", 1, 1000)))
        # A replica that may not PSYNC tries SYNC, which older masters know.
        master.asked("ACL SETUSER", "default", "-sync", "-psync", "-replconf")
        assert within(PATIENCE, lambda: cut_off(master))
        await store.save(partition, epoch, Checkpoint(2, b""), [(b"a", b"2")])
        master.kill()
        with pytest.raises(Fenced, match="lost writes"):
            await served(lambda: store.load(partition, epoch, [b"a"]))
        claim = await store.claim(partition)
        assert claim.checkpoint == Checkpoint(1, b"")
        assert await store.load(partition, claim.epoch, [b"a"]) == [b"1"]

    run(scenario, cluster.url)
    assert replica.asked("ROLE")[0] == "master"


def test_a_scan_that_a_failover_cuts_in_two_is_broken_off(cluster: ValkeyCluster) -> None:
    """Where the replica goes on, the master's cursor means nothing: entities would be missing from the archive."""
    master, _ = pair(cluster)
    partition = partition_at(master)
    states = [(b"%d" % number, b"1") for number in range(5000)]

    async def scenario(store: RedisStateStore) -> None:
        epoch = (await store.claim(partition)).epoch
        await store.save(partition, epoch, Checkpoint(1, b""), states)
        cursor, found = await store.changed(partition, epoch, recent=True)
        assert cursor
        assert len(found) < len(states)
        assert within(PATIENCE, lambda: bool(master.asked("WAIT", 1, 1000)))
        master.kill()
        said = ""
        deadline = time.monotonic() + PATIENCE
        while "between two pages" not in said:
            assert time.monotonic() < deadline, said
            with pytest.raises(StoreUnavailable) as caught:
                await store.changed(partition, epoch, True, cursor)
            said = str(caught.value)
            await asyncio.sleep(0.1)
        pages, cursor = set[bytes](), -1
        while cursor:
            cursor, found = await store.changed(partition, epoch, True, max(cursor, 0))
            pages |= set(found)
        assert pages == {entity for entity, _ in states}

    run(scenario, cluster.url)


def test_a_master_that_comes_back_empty_costs_its_own_partitions_alone(bare: ValkeyCluster) -> None:
    """Its owner is fenced and the next claim begins a new generation; owners elsewhere notice nothing."""
    master, other = bare.masters[0], bare.masters[1]
    lost, kept = partition_at(master), partition_at(other)

    async def scenario(store: RedisStateStore) -> None:
        epochs = {name: (await store.claim(name)).epoch for name in (lost, kept)}
        for name, epoch in epochs.items():
            await store.save(name, epoch, Checkpoint(1, b""), [(b"a", b"1")])
        master.kill()
        master.start()
        with pytest.raises(Fenced, match="lost writes"):
            await served(lambda: store.load(lost, epochs[lost], [b"a"]))
        claim = await store.claim(lost)
        assert claim.checkpoint is None
        assert await store.load(lost, claim.epoch, [b"a"]) == [None]
        await store.save(kept, epochs[kept], Checkpoint(2, b""), [])
        assert await store.load(kept, epochs[kept], [b"a"]) == [b"1"]

    run(scenario, bare.url)


def test_a_slot_that_moves_key_by_key_is_waited_for(bare: ValkeyCluster) -> None:
    """While its keys are at two masters nothing is read or written; then the owner goes on at the new one."""
    source, target = bare.masters[0], bare.masters[1]
    partition = partition_at(source)
    slot = key_slot(partition.encode())

    async def scenario(store: RedisStateStore) -> None:
        epoch = (await store.claim(partition)).epoch
        await store.save(partition, epoch, Checkpoint(1, b""), [(b"a", b"1")])
        target.asked("CLUSTER SETSLOT", slot, "IMPORTING", source.asked("CLUSTER MYID"))
        source.asked("CLUSTER SETSLOT", slot, "MIGRATING", target.asked("CLUSTER MYID"))
        keys = source.asked("CLUSTER GETKEYSINSLOT", slot, 10)
        assert len(keys) == 3
        for key in keys:
            source.asked("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
            with pytest.raises(StoreUnavailable):
                await store.save(partition, epoch, Checkpoint(9, b""), [(b"a", b"9")])
        for member in (target, source, bare.masters[2]):
            member.asked("CLUSTER SETSLOT", slot, "NODE", target.asked("CLUSTER MYID"))
        assert await served(lambda: store.load(partition, epoch, [b"a"])) == [b"1"]
        await store.save(partition, epoch, Checkpoint(2, b""), [(b"a", b"2")])
        assert (await store.claim(partition)).checkpoint == Checkpoint(2, b"")

    run(scenario, bare.url)


def test_a_plain_url_of_a_cluster_is_told_what_to_be(bare: ValkeyCluster) -> None:
    """Who names one node of a cluster as if it were all of it learns how a cluster is named."""
    partition = partition_at(bare.masters[1])

    async def scenario(store: RedisStateStore) -> None:
        with pytest.raises(StoreUnavailable, match=r"as clusters do .*redis\+cluster://"):
            await store.claim(partition)

    run(scenario, f"redis://{bare.masters[0].address}/0")
