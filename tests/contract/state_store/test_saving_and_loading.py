"""What is saved is what is loaded: each state under its own id, in its own partition, the checkpoint with it."""

import asyncio
from uuid import uuid4

from redis import Redis

from streams.stores.redis import RedisStateStore
from streams.stores.redis_keys import BUCKETS
from streams.stores.state import Checkpoint, StateStore
from tests.contract.state_store.shared import IDS, TTL_MS, Run


def test_what_is_saved_is_claimed_and_loaded(run: Run) -> None:
    """The next owner finds the last checkpoint, and each state under its own id, binary ones too."""
    marks, states = bytes(range(256)), [(id_, id_[::-1] + bytes([i, 0, 255])) for i, id_ in enumerate(IDS)]

    async def scenario(store: StateStore, partition: str) -> None:
        epoch = (await store.claim(partition)).epoch
        await store.save(partition, epoch, Checkpoint(7, b""), [])
        await store.save(partition, epoch, Checkpoint(2**40, marks), states)
        claim = await store.claim(partition)
        assert claim.checkpoint == Checkpoint(2**40, marks)
        assert await store.load(partition, claim.epoch, IDS) == [state for _, state in states]
        assert await store.read(partition, IDS) == [state for _, state in states]

    run(scenario)


def test_empty_marks_stay_empty(run: Run) -> None:
    """A stage without a gate keeps no marks, and gets none back."""

    async def scenario(store: StateStore, partition: str) -> None:
        await store.save(partition, (await store.claim(partition)).epoch, Checkpoint(0, b""), [])
        assert (await store.claim(partition)).checkpoint == Checkpoint(0, b"")

    run(scenario)


def test_states_come_in_the_order_asked(run: Run) -> None:
    """Loading answers in the order of the question, None where nothing was kept, twice what is asked twice."""

    async def scenario(store: StateStore, partition: str) -> None:
        epoch = (await store.claim(partition)).epoch
        await store.save(partition, epoch, Checkpoint(1, b""), [(b"a", b"1"), (b"b", b"2")])
        assert await store.load(partition, epoch, [b"b", b"?", b"a", b"b"]) == [b"2", None, b"1", b"2"]
        assert await store.read(partition, [b"b", b"?", b"a", b"b"]) == [b"2", None, b"1", b"2"]
        assert await store.load(partition, epoch, []) == await store.read(partition, []) == []

    run(scenario)


def test_a_later_save_replaces_what_it_names_only(run: Run) -> None:
    """Entities that a checkpoint does not name stay as they are."""

    async def scenario(store: StateStore, partition: str) -> None:
        epoch = (await store.claim(partition)).epoch
        await store.save(partition, epoch, Checkpoint(1, b""), [(b"a", b"1"), (b"b", b"1")])
        await store.save(partition, epoch, Checkpoint(2, b""), [(b"b", b"2")])
        assert await store.read(partition, [b"a", b"b"]) == [b"1", b"2"]

    run(scenario)


def test_partitions_do_not_meet(run: Run) -> None:
    """The same entity in two partitions is two states."""

    async def scenario(store: StateStore, partition: str) -> None:
        for name, state in ((partition, b"0"), (partition + "1", b"1")):
            await store.save(name, (await store.claim(name)).epoch, Checkpoint(1, b""), [(b"a", state)])
        assert await store.read(partition, [b"a"]) == [b"0"]
        assert await store.read(partition + "1", [b"a"]) == [b"1"]

    run(scenario)


def test_many_entities_in_one_checkpoint(run: Run) -> None:
    """Five thousand states of a kilobyte are kept in one save."""
    states = [(f"entity-{i}".encode(), f"{i}".encode() * 250) for i in range(5_000)]

    async def scenario(store: StateStore, partition: str) -> None:
        await store.save(partition, (await store.claim(partition)).epoch, Checkpoint(9, b"m"), states)
        assert await store.read(partition, [id_ for id_, _ in states]) == [state for _, state in states]

    run(scenario)


def test_keys_share_a_slot_and_states_expire(valkey_server: str) -> None:
    """A partition's keys have one hash tag, as a cluster asks; states live for the TTL, the checkpoint for ever."""
    partition = f"fraud.customer.{uuid4().hex}.3"
    states = [(b"%d" % number, b"1") for number in range(20 * BUCKETS)]

    async def save() -> None:
        store = RedisStateStore(valkey_server, TTL_MS)
        await store.save(partition, (await store.claim(partition)).epoch, Checkpoint(1, b"m"), states)
        await store.close()

    asyncio.run(save())
    with Redis.from_url(valkey_server) as redis:
        keys = {key: redis.pttl(key) for key in redis.keys(f"*{partition}*")}
        generation = redis.hget(f"{{{partition}}}:checkpoint", "generation")
    tag = f"{{{partition}}}:".encode()
    assert keys.pop(tag + b"checkpoint") == -1
    assert 0 < keys.pop(tag + generation + b":recent") <= TTL_MS
    assert len(keys) == BUCKETS
    assert all(key.startswith(tag + generation + b":states:") and 0 < ttl <= TTL_MS for key, ttl in keys.items())
