"""A store that came back older, or empty: an owner who lost something by it is fenced, and nobody else."""

import asyncio
from uuid import uuid4

import pytest

from streams.stores.redis import RedisStateStore
from streams.stores.state import Checkpoint, Fenced, StateStore
from tests.contract.state_store.shared import TTL_MS, Run, Snapshot, Wipe, dump


def test_an_owner_whose_writes_were_lost_writes_nothing(run: Run, snapshot: Snapshot) -> None:
    """A store that came back older, the epoch intact, refuses the next save, of what changed since a lost one."""

    async def scenario(store: StateStore, partition: str) -> None:
        epoch = (await store.claim(partition)).epoch
        await store.save(partition, epoch, Checkpoint(1, b"1"), [(b"a", b"1")])
        restore = snapshot(store, partition)
        await store.save(partition, epoch, Checkpoint(2, b"2"), [(b"b", b"2")])
        restore()
        for _ in range(2):
            with pytest.raises(Fenced, match=rf"{partition}: .* has lost writes of epoch {epoch}"):
                await store.save(partition, epoch, Checkpoint(3, b"3"), [(b"c", b"3")])
        assert await store.read(partition, [b"a", b"b", b"c"]) == [b"1", None, None]
        claim = await store.claim(partition)
        assert claim.checkpoint == Checkpoint(1, b"1")
        await store.save(partition, claim.epoch, Checkpoint(2, b"2"), [(b"b", b"2")])
        assert await store.read(partition, [b"a", b"b"]) == [b"1", b"2"]

    run(scenario)


def test_a_store_that_went_back_to_a_former_owner_is_not_his(run: Run, snapshot: Snapshot, wipe: Wipe) -> None:
    """Wiped, claimed by another, then set back: the claim is his again, but not what he saved under it."""

    async def scenario(store: StateStore, partition: str) -> None:
        former = (await store.claim(partition)).epoch
        restore = snapshot(store, partition)
        await store.save(partition, former, Checkpoint(1, b""), [(b"a", b"1")])
        wipe(store, partition)
        await store.claim(partition)
        restore()
        with pytest.raises(Fenced, match="has lost writes"):
            await store.save(partition, former, Checkpoint(2, b""), [(b"b", b"2")])

    run(scenario)


@pytest.mark.integration
def test_a_redis_that_went_back_to_a_former_owner_is_not_his(valkey_server: str) -> None:
    """As above, with the former owner a process of its own, which has not heard of its successor."""
    partition = f"fraud.customer.{uuid4().hex}.0"

    async def scenario() -> None:
        first, second = RedisStateStore(valkey_server, TTL_MS), RedisStateStore(valkey_server, TTL_MS)
        former = (await first.claim(partition)).epoch
        restore = dump(valkey_server, partition)
        await first.save(partition, former, Checkpoint(1, b""), [(b"a", b"1")])
        await second.claim(partition)
        restore()
        with pytest.raises(Fenced, match="has lost writes"):
            await first.save(partition, former, Checkpoint(2, b""), [(b"b", b"2")])
        await first.close()
        await second.close()

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_a_store_that_lost_nothing_of_the_owner_goes_on(run: Run, snapshot: Snapshot) -> None:
    """Restarted from a snapshot that has the last save, or the claim before any: nothing is refused."""

    async def scenario(store: StateStore, partition: str) -> None:
        former = (await store.claim(partition)).epoch
        await store.save(partition, former, Checkpoint(1, b""), [(b"a", b"1")])
        epoch = (await store.claim(partition)).epoch
        snapshot(store, partition)()
        await store.save(partition, epoch, Checkpoint(2, b""), [(b"b", b"2")])
        snapshot(store, partition)()
        await store.save(partition, epoch, Checkpoint(3, b""), [(b"c", b"3")])
        assert (await store.claim(partition)).checkpoint == Checkpoint(3, b"")

    run(scenario)


def test_an_owner_whose_claim_was_lost_writes_nothing(run: Run, snapshot: Snapshot) -> None:
    """A claim that the store has forgotten is none, even after another that finds what it found."""

    async def scenario(store: StateStore, partition: str) -> None:
        await store.save(partition, (await store.claim(partition)).epoch, Checkpoint(1, b""), [(b"a", b"1")])
        restore = snapshot(store, partition)
        forgotten = (await store.claim(partition)).epoch
        restore()
        with pytest.raises(Fenced):
            await store.save(partition, forgotten, Checkpoint(2, b""), [(b"a", b"2")])
        assert await store.read(partition, [b"a"]) == [b"1"]

    run(scenario)


def test_two_workers_under_one_epoch_are_not_both_owners(valkey_server: str) -> None:
    """Redis loses a worker's claim and gives its epoch to the next: the first is fenced, the second goes on."""
    partition = f"fraud.customer.{uuid4().hex}.0"

    async def scenario() -> None:
        first, second = RedisStateStore(valkey_server, TTL_MS), RedisStateStore(valkey_server, TTL_MS)
        await first.save(partition, (await first.claim(partition)).epoch, Checkpoint(1, b""), [(b"a", b"1")])
        restore = dump(valkey_server, partition)
        forgotten = (await first.claim(partition)).epoch
        restore()
        claim = await second.claim(partition)
        assert claim.epoch == forgotten
        with pytest.raises(Fenced, match=r"Redis at .* has lost writes"):
            await first.save(partition, forgotten, Checkpoint(2, b""), [(b"a", b"2")])
        await second.save(partition, claim.epoch, Checkpoint(3, b""), [(b"b", b"3")])
        assert await second.read(partition, [b"a", b"b"]) == [b"1", b"3"]
        await first.close()
        await second.close()

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_an_owner_whose_writes_were_lost_reads_nothing(run: Run, snapshot: Snapshot) -> None:
    """A state that the store has lost must not be taken for that of a new entity, or an older one for the last."""

    async def scenario(store: StateStore, partition: str) -> None:
        epoch = (await store.claim(partition)).epoch
        await store.save(partition, epoch, Checkpoint(1, b""), [(b"a", b"1")])
        restore = snapshot(store, partition)
        await store.save(partition, epoch, Checkpoint(2, b""), [(b"a", b"2"), (b"b", b"2")])
        restore()
        with pytest.raises(Fenced, match=rf"{partition}: .* has lost writes of epoch {epoch}"):
            await store.load(partition, epoch, [b"a", b"b"])

    run(scenario)


def test_a_store_that_was_wiped_has_no_owner(run: Run, wipe: Wipe) -> None:
    """All is gone: the owner neither reads nor writes, the next one finds nothing and goes on from there."""

    async def scenario(store: StateStore, partition: str) -> None:
        epoch = (await store.claim(partition)).epoch
        await store.save(partition, epoch, Checkpoint(1, b""), [(b"a", b"1")])
        wipe(store, partition)
        lost = rf"{partition}: .* has lost writes of epoch {epoch}"
        with pytest.raises(Fenced, match=lost):
            await store.load(partition, epoch, [b"a"])
        with pytest.raises(Fenced, match=lost):
            await store.save(partition, epoch, Checkpoint(2, b""), [(b"a", b"2")])
        claim = await store.claim(partition)
        assert (claim.checkpoint, claim.refused) == (None, None)
        await store.save(partition, claim.epoch, Checkpoint(1, b""), [(b"a", b"1")])
        assert await store.load(partition, claim.epoch, [b"a"]) == [b"1"]

    run(scenario)
