"""What was kept and has changed since: refused, set aside under a name that is told, and the next claim is sound."""

import asyncio
from uuid import uuid4

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from streams.stores.redis import RedisStateStore
from streams.stores.state import Checkpoint, Fenced, StateStore
from tests.contract.state_store.shared import TTL_MS, Damage, Run


def test_a_checkpoint_of_which_one_bit_has_changed_is_refused(run: Run, damage: Damage) -> None:
    """It is set aside under a name that is told, the next generation reads none of its states, and is kept itself."""

    async def scenario(store: StateStore, partition: str) -> None:
        epoch = (await store.claim(partition)).epoch
        await store.save(partition, epoch, Checkpoint(5, b"marks"), [(b"a", b"1"), (b"b", b"1")])
        damage(store, partition, lambda record: record[:3] + bytes([record[3] ^ 1]) + record[4:])
        claim = await store.claim(partition)
        assert claim.checkpoint is None
        assert claim.epoch > epoch
        assert f"{partition}}}:refused:" in str(claim.refused)
        assert await store.load(partition, claim.epoch, [b"a", b"b"]) == [None, None]
        await store.save(partition, claim.epoch, Checkpoint(2, b"m"), [(b"b", b"2")])
        again = await store.claim(partition)
        assert (again.checkpoint, again.refused) == (Checkpoint(2, b"m"), None)
        assert await store.load(partition, again.epoch, [b"a", b"b"]) == [None, b"2"]

    run(scenario)


@pytest.mark.parametrize("length", [0, 15, 31, 36])
def test_a_checkpoint_that_was_cut_off_is_refused(run: Run, damage: Damage, length: int) -> None:
    """Wherever it ends too early."""

    async def scenario(store: StateStore, partition: str) -> None:
        await store.save(partition, (await store.claim(partition)).epoch, Checkpoint(5, b"marks"), [(b"a", b"1")])
        damage(store, partition, lambda record: record[:length])
        claim = await store.claim(partition)
        assert claim.checkpoint is None
        assert claim.refused

    run(scenario)


def test_a_checkpoint_of_another_partition_or_save_is_refused(run: Run, damage: Damage) -> None:
    """Whole, but not what was kept here last: its offset would not fit the states."""

    async def scenario(store: StateStore, partition: str) -> None:
        other, records = partition + "1", list[bytes]()
        for name in (partition, other):
            await store.save(name, (await store.claim(name)).epoch, Checkpoint(5, b""), [(b"a", b"1")])
            damage(store, name, lambda record: records.append(record) or record)  # type: ignore[func-returns-value]
        await store.save(other, (await store.claim(other)).epoch, Checkpoint(6, b""), [(b"a", b"2")])
        damage(store, other, lambda record: records[1])
        damage(store, partition, lambda record: records[1])
        assert (await store.claim(other)).refused
        assert (await store.claim(partition)).refused

    run(scenario)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("number", b"8"),
        ("number", b"x"),
        ("generation", b"00000000"),
        ("epoch", b"x"),
        ("epoch", b"9" * 40),
        ("period", b"7"),
        ("period", b"x"),
        ("since", b"7"),
    ],
)
def test_every_field_of_a_checkpoint_is_checked(valkey_server: str, field: str, value: bytes) -> None:
    """A number, period, generation or epoch that was changed: set aside with a TTL, and the next claim is sound."""
    partition = f"fraud.customer.{uuid4().hex}.0"

    async def scenario() -> str:
        store = RedisStateStore(valkey_server, TTL_MS)
        epoch = (await store.claim(partition)).epoch
        for offset in range(3):
            await store.save(partition, epoch, Checkpoint(offset, b""), [(b"a", b"1")])
        with Redis.from_url(valkey_server) as redis:
            redis.hset(f"{{{partition}}}:checkpoint", field, value)
        claim = await store.claim(partition)
        assert claim.checkpoint is None
        assert await store.load(partition, claim.epoch, [b"a"]) == [None]
        await store.save(partition, claim.epoch, Checkpoint(9, b""), [(b"a", b"9")])
        assert (await store.claim(partition)).checkpoint == Checkpoint(9, b"")
        await store.close()
        return str(claim.refused)

    place = asyncio.run(asyncio.wait_for(scenario(), 20))
    with Redis.from_url(valkey_server) as redis:
        assert redis.hget(place, field) is not None
        assert 0 < redis.pttl(place) <= TTL_MS


def test_an_unfit_state_is_set_aside_with_its_partition(run: Run) -> None:
    """Its owner is fenced by that, and the next one finds no checkpoint and none of the states."""

    async def scenario(store: StateStore, partition: str) -> None:
        epoch = (await store.claim(partition)).epoch
        await store.save(partition, epoch, Checkpoint(5, b"marks"), [(b"a", b"bad"), (b"b", b"1")])
        place = await store.set_aside(partition, epoch, b"a")
        assert place.startswith(f"{{{partition}}}:refused:")
        with pytest.raises(Fenced):
            await store.load(partition, epoch, [b"b"])
        with pytest.raises(Fenced):
            await store.save(partition, epoch, Checkpoint(6, b""), [(b"b", b"2")])
        claim = await store.claim(partition)
        assert (claim.checkpoint, claim.refused) == (None, None)
        assert claim.epoch > epoch
        assert await store.load(partition, claim.epoch, [b"a", b"b"]) == [None, None]

    run(scenario)


@pytest.mark.integration
def test_a_key_of_another_type_is_set_aside(valkey_server: str) -> None:
    """A checkpoint and states that are no hashes: nothing is written there, and what they are is kept aside."""
    partition = f"fraud.customer.{uuid4().hex}.0"

    async def scenario() -> None:
        store = RedisStateStore(valkey_server, TTL_MS)
        with Redis.from_url(valkey_server) as redis:
            redis.set(f"{{{partition}}}:checkpoint", "?")
            claim = await store.claim(partition)
            assert redis.get(str(claim.refused)) == b"?"
            await store.save(partition, claim.epoch, Checkpoint(1, b""), [(b"a", b"1")])
            (states,) = redis.keys(f"{{{partition}}}:*:states:*")
            redis.delete(states)
            redis.rpush(states, "1")
            with pytest.raises(ResponseError, match="WRONGTYPE"):
                await store.save(partition, claim.epoch, Checkpoint(2, b""), [(b"a", b"2")])
            assert await store.load(partition, claim.epoch, [b"a"]) == [b""]
            place = await store.set_aside(partition, claim.epoch, b"a")
            assert redis.lrange(place + ":state", 0, -1) == [b"1"]
            assert redis.hget(place, "entity") == b"a"
            assert (await store.claim(partition)).checkpoint is None
        await store.close()

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_who_owns_nothing_sets_nothing_aside(run: Run) -> None:
    """A former owner's finding is about what another keeps now."""

    async def scenario(store: StateStore, partition: str) -> None:
        former = (await store.claim(partition)).epoch
        await store.save(partition, former, Checkpoint(5, b""), [(b"a", b"1")])
        owner = (await store.claim(partition)).epoch
        with pytest.raises(Fenced):
            await store.set_aside(partition, former, b"a")
        assert await store.load(partition, owner, [b"a"]) == [b"1"]

    run(scenario)


@pytest.mark.integration
def test_another_process_sets_nothing_aside_that_it_does_not_own(valkey_server: str) -> None:
    """The former owner's finding changes nothing of what the owner keeps."""
    partition = f"fraud.customer.{uuid4().hex}.0"

    async def scenario() -> None:
        former, owner = RedisStateStore(valkey_server, TTL_MS), RedisStateStore(valkey_server, TTL_MS)
        epoch = (await former.claim(partition)).epoch
        await former.save(partition, epoch, Checkpoint(1, b""), [(b"a", b"1")])
        claim = await owner.claim(partition)
        with pytest.raises(Fenced):
            await former.set_aside(partition, epoch, b"a")
        assert await owner.load(partition, claim.epoch, [b"a"]) == [b"1"]
        await former.close()
        await owner.close()

    asyncio.run(asyncio.wait_for(scenario(), 20))
