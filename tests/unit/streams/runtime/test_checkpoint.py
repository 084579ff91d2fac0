"""The checkpoint protocol: everything of a checkpoint or nothing, after the outputs, by the owner."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pytest

from streams.features.table import EntityTable, StateRefused
from streams.metrics import Metrics
from streams.runtime.checkpoint import OwnedPartition, checkpoint_all, evict_all, folding
from streams.runtime.sender import UndeliveredError
from streams.stores.memory import MemoryStateStore
from streams.stores.state import Checkpoint, Fenced, States
from streams.usecases import FRAUD
from tests.unit.streams.world import Broker, MemorySender, World

CUSTOMER = FRAUD.features.stages[0]
NAME = "fraud.customer.0.0"


class WatchedStore(MemoryStateStore):
    """Remembers what it was asked, waits for `ready` before a save, and is away for `failures` saves."""

    def __init__(self) -> None:
        super().__init__()
        self.saved: list[tuple[int, dict[bytes, bytes]]] = []
        self.loaded: list[bytes] = []
        self.failures = 0
        self.ready = asyncio.Event()
        self.ready.set()

    async def load(self, partition: str, epoch: int, entities: Sequence[bytes]) -> list[bytes | None]:
        self.loaded += entities
        return await super().load(partition, epoch, entities)

    async def save(self, partition: str, epoch: int, checkpoint: Checkpoint, states: States) -> None:
        await self.ready.wait()
        if self.failures:
            self.failures -= 1
            raise ConnectionError("away")
        await super().save(partition, epoch, checkpoint, states)
        self.saved.append((checkpoint.offset, dict(states)))


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 20))


async def owner(store: MemoryStateStore, sources: int | None = None) -> OwnedPartition:
    owned = OwnedPartition(NAME, EntityTable(CUSTOMER, FRAUD.features), store, Metrics("worker"))
    await owned.claim(sources)
    return owned


async def fold(owned: OwnedPartition, next_offset: int, *keys: bytes, failing: bool = False) -> None:
    """Fold one event of each key, as a batch that ends before `next_offset`, or fail just before its end."""
    n = len(keys)
    async with folding(owned):
        await owned.load(owned.missing(keys))
        owned.table.fold(keys, np.zeros(n, np.int8), np.full(n, next_offset), np.ones((n, 2)))
        if failing:
            raise LookupError("a topic is missing")
        owned.folded(next_offset, passed=True)


def sending(automatic: bool = True) -> Any:
    return MemorySender(Broker(), automatic)


async def idle() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_checkpoint_waits_for_the_outputs() -> None:
    """Nothing is kept before Kafka has acknowledged every output of what it covers, and then all of it."""

    async def scenario() -> None:
        store, sender = WatchedStore(), sending(automatic=False)
        owned = await owner(store)
        await fold(owned, 5, b"a")
        await sender.send("t", None, b"1")
        await sender.send("t", None, b"2")
        checkpoint = asyncio.create_task(owned.checkpoint(sender))
        await idle()
        sender.deliver(1)
        await idle()
        assert not checkpoint.done()
        assert store.saved == []
        sender.deliver()
        assert await checkpoint == 1
        assert store.saved == [(5, owned.table.states())]
        assert owned.kept_offset == 5

    run(scenario)


def test_what_comes_after_the_copy_belongs_to_the_next() -> None:
    """While acknowledgements are awaited folding goes on: the checkpoint is of the moment of its copy."""

    async def scenario() -> None:
        store, sender = WatchedStore(), sending(automatic=False)
        owned = await owner(store)
        await fold(owned, 5, b"a")
        before = owned.table.states()
        await sender.send("t", None, b"1")
        checkpoint = asyncio.create_task(owned.checkpoint(sender))
        await idle()
        await fold(owned, 9, b"a", b"b")
        await sender.send("t", None, b"2")
        sender.deliver(1)
        await checkpoint
        assert store.saved == [(5, before)]
        assert owned.age() > 0
        sender.deliver()
        assert await owned.checkpoint(sender) == 2
        assert store.saved[1] == (9, owned.table.states())

    run(scenario)


def test_a_checkpoint_without_changes_writes_nothing() -> None:
    """Nothing folded, nothing written; nothing new, nothing written again."""

    async def scenario() -> None:
        store, sender = WatchedStore(), sending()
        owned = await owner(store)
        assert await owned.checkpoint(sender) is None
        await fold(owned, 1, b"a")
        assert owned.age() > 0
        assert await owned.checkpoint(sender) == 1
        assert owned.age() == 0
        assert await owned.checkpoint(sender) is None
        assert len(store.saved) == 1

    run(scenario)


def test_only_what_changed_is_written() -> None:
    """An entity without a new event is not written again."""

    async def scenario() -> None:
        store, sender = WatchedStore(), sending()
        owned = await owner(store)
        await fold(owned, 2, b"a", b"b")
        await owned.checkpoint(sender)
        await fold(owned, 3, b"b")
        await owned.checkpoint(sender)
        assert [sorted(states) for _, states in store.saved] == [[b"a", b"b"], [b"b"]]

    run(scenario)


def test_a_failed_save_is_made_up_for() -> None:
    """What did not reach the store counts as changed, and as old as it is, until a save has it."""

    async def scenario() -> None:
        store, sender = WatchedStore(), sending()
        owned = await owner(store)
        await fold(owned, 2, b"a", b"b")
        store.failures = 2
        for _ in range(2):
            age = owned.age()
            with pytest.raises(ConnectionError):
                await owned.checkpoint(sender)
            assert owned.age() > age
        await fold(owned, 3, b"c")
        assert await owned.checkpoint(sender) == 3
        assert store.saved == [(3, owned.table.states())]

    run(scenario)


def test_undelivered_outputs_keep_a_checkpoint_away() -> None:
    """An output that Kafka refused: no offset beyond it is ever kept."""

    async def scenario() -> None:
        store, sender = WatchedStore(), sending(automatic=False)
        owned = await owner(store)
        await fold(owned, 2, b"a")
        await sender.send("t", None, b"1")
        sender.lose()
        for _ in range(2):
            with pytest.raises(UndeliveredError):
                await owned.checkpoint(sender)
        assert store.saved == []

    run(scenario)


def test_a_fenced_owner_writes_nothing() -> None:
    """A worker that lost its partition learns it at its next checkpoint, of which nothing is kept."""

    async def scenario() -> None:
        store, sender = WatchedStore(), sending()
        former = await owner(store)
        await fold(former, 2, b"a")
        await former.checkpoint(sender)
        await fold(former, 4, b"a")
        new = await owner(store)
        assert new.next_offset == 2
        with pytest.raises(Fenced):
            await former.checkpoint(sender)
        await fold(new, 3, b"a")
        await new.checkpoint(sender)
        assert [offset for offset, _ in store.saved] == [2, 3]

    run(scenario)


def test_checkpoints_of_a_partition_wait_for_each_other() -> None:
    """Two at once, as when partitions are given up: the newer is written last, and neither returns before that."""

    async def scenario() -> None:
        store, sender = WatchedStore(), sending()
        owned = await owner(store)
        await fold(owned, 2, b"a")
        store.ready.clear()
        first = asyncio.create_task(owned.checkpoint(sender))
        await idle()
        nothing_new = asyncio.create_task(owned.checkpoint(sender))
        await idle()
        assert not nothing_new.done()  # whoever gives the partition up now would fence the first
        await fold(owned, 4, b"b")
        store.ready.set()
        assert [await first, await nothing_new] == [1, 1]
        assert [offset for offset, _ in store.saved] == [2, 4]

    run(scenario)


def test_a_half_folded_batch_is_never_kept() -> None:
    """A fold that fails leaves a state that fits no offset: nothing of the partition is kept from then on."""

    async def scenario() -> None:
        store, sender = WatchedStore(), sending()
        owned = await owner(store)
        await fold(owned, 2, b"a")
        with pytest.raises(LookupError):
            await fold(owned, 3, b"b", failing=True)
        assert await owned.checkpoint(sender) is None
        async with folding(owned):
            pass
        assert await owned.checkpoint(sender) is None
        assert store.saved == []

    run(scenario)


def test_an_abandoned_partition_is_never_kept() -> None:
    """Given up with changes that no checkpoint has: they are the next owner's to fold again, not ours to write."""

    async def scenario() -> None:
        store, sender = WatchedStore(), sending()
        owned = await owner(store)
        await fold(owned, 2, b"a")
        async with folding(owned):
            owned.abandon()  # in the middle of a batch
        assert await owned.checkpoint(sender) is None
        await fold(owned, 3, b"b")
        assert await owned.checkpoint(sender) is None
        assert store.saved == []

    run(scenario)


def test_who_waits_for_a_checkpoint_under_way_may_abandon_meanwhile() -> None:
    """The write under way goes on, the one that waits for it does not start."""

    async def scenario() -> None:
        store, sender = WatchedStore(), sending()
        owned = await owner(store)
        await fold(owned, 2, b"a")
        store.ready.clear()
        first = asyncio.create_task(owned.checkpoint(sender))
        await idle()
        await fold(owned, 4, b"b")
        second = asyncio.create_task(owned.checkpoint(sender))
        await idle()
        owned.abandon()
        store.ready.set()
        assert [await first, await second] == [1, None]
        assert [offset for offset, _ in store.saved] == [2]

    run(scenario)


def test_a_new_owner_finds_states_as_they_are_touched() -> None:
    """Entities come from the store when first needed, once; those of a fresh partition are not asked for."""

    async def scenario() -> None:
        store, sender = WatchedStore(), sending()
        first = await owner(store)
        assert first.next_offset == -1
        await fold(first, 2, b"a", b"b")
        await first.checkpoint(sender)
        assert store.loaded == []
        second = await owner(store)
        assert second.next_offset == 2
        await second.load(second.missing([b"b", b"b", b"new"]))
        await second.load(second.missing([b"b"]))
        assert second.table.states() == {b"b": first.table.states()[b"b"]}
        assert store.loaded == [b"b", b"new"]

    run(scenario)


def test_a_new_owner_can_tell_kafka_what_was_kept_before_it() -> None:
    """Killed between the store and the commit to Kafka, the commit is made up for without a further event."""

    async def scenario() -> None:
        store = WatchedStore()
        first = await owner(store)
        await fold(first, 2, b"a")
        await first.checkpoint(sending())
        assert (await owner(store)).kept_offset == 2

    run(scenario)


def test_an_entity_that_left_the_memory_comes_back() -> None:
    """Also into a partition that began without a checkpoint, where nothing else is asked for."""

    async def scenario() -> None:
        store, sender = WatchedStore(), sending()
        owned = await owner(store)
        await fold(owned, 2, b"a", b"b")
        await owned.checkpoint(sender)
        before = owned.table.states()
        assert await owned.evict(1) == 1
        (gone,) = before.keys() - owned.table.states().keys()
        await owned.load(owned.missing([b"a", b"b"]))
        assert owned.table.states() == before
        assert store.loaded == [gone]

    run(scenario)


def test_what_is_done_may_be_past_the_last_record() -> None:
    """The end of a transaction is no record: where all is kept, it counts as done; else the checkpoint counts."""

    async def scenario() -> None:
        owned, sender = await owner(WatchedStore()), sending()
        assert owned.done(3) == -1
        await fold(owned, 2, b"a")
        assert owned.done(3) == -1
        await owned.checkpoint(sender)
        assert (owned.done(-1), owned.done(2), owned.done(3)) == (2, 2, 3)
        await fold(owned, 5, b"a")
        assert owned.done(6) == 2

    run(scenario)


def test_a_damaged_state_is_named() -> None:
    """A state that does not load stops the worker, saying in which partition and why, but not whose it is."""

    async def scenario() -> None:
        store = WatchedStore()
        epoch = (await store.claim(NAME)).epoch
        await store.save(NAME, epoch, Checkpoint(1, b""), [(b"c7", b"\0" * 40)])
        with pytest.raises(StateRefused, match=rf"{NAME}: the state of one entity: .*damaged") as caught:
            await (await owner(store)).load([b"c7"])
        assert "c7" not in str(caught.value)

    run(scenario)


def test_another_partition_count_is_refused() -> None:
    """Marks of so many sources do not fit a topic of more."""

    async def scenario() -> None:
        store, sender = WatchedStore(), sending()
        two = await owner(store, sources=2)
        await fold(two, 1, b"a")
        await two.checkpoint(sender)
        with pytest.raises(StateRefused, match=f"{NAME}: .*the partition count has changed"):
            await owner(store, sources=3)

    run(scenario)


def test_every_partition_is_kept_and_measured() -> None:
    """`checkpoint_all` keeps each partition and counts what was written, and only what was."""

    async def scenario() -> None:
        world = World(2, WatchedStore())
        agent = await world.start(0)
        owned = list(agent.owned.values())
        await fold(owned[1], 2, b"a", b"b")
        await checkpoint_all(owned, world.senders[0], world.metrics)  # type: ignore[arg-type]
        written = world.metrics.registry.get_sample_value("headrace_checkpoint_entities_total", {"stage": "customer"})
        times = world.metrics.registry.get_sample_value("headrace_checkpoint_seconds_count", {"stage": "customer"})
        assert (written, times) == (2, 1)

    run(scenario)


def test_an_evicted_entity_comes_back_from_the_store() -> None:
    """Also where the partition began empty, so that nothing was asked of the store before."""

    async def scenario() -> None:
        store, sender = WatchedStore(), sending()
        owned = await owner(store)
        await fold(owned, 2, b"a", b"b")
        assert await owned.evict(0) == 0  # nothing is kept yet
        await owned.checkpoint(sender)
        assert await owned.evict(1) == 1
        await fold(owned, 3, b"a", b"b")
        alone = await owner(WatchedStore())
        await fold(alone, 2, b"a", b"b")
        await fold(alone, 3, b"a", b"b")
        assert owned.table.states() == alone.table.states()
        assert len(store.loaded) == 1

    run(scenario)


def test_nothing_is_evicted_while_it_is_written() -> None:
    """What a checkpoint has taken is not in the store before the write is done, so it stays until then."""

    async def scenario() -> None:
        store, sender = WatchedStore(), sending()
        owned = await owner(store)
        await fold(owned, 2, b"a")
        store.ready.clear()
        checkpoint, eviction = (asyncio.create_task(work) for work in (owned.checkpoint(sender), owned.evict(0)))
        await idle()
        assert (b"a" in owned.table, eviction.done()) == (True, False)
        store.ready.set()
        await checkpoint
        assert await eviction == 1

    run(scenario)


def test_the_limit_is_of_all_partitions_together() -> None:
    """Each gives in proportion to what it has, and the number is shown."""

    async def scenario() -> None:
        world = World(2, WatchedStore())
        agent = await world.start(0)
        owned = list(agent.owned.values())
        await fold(owned[0], 2, *(b"%d" % number for number in range(30)))
        await fold(owned[1], 2, *(b"%d" % number for number in range(10)))
        await checkpoint_all(owned, world.senders[0], world.metrics)  # type: ignore[arg-type]
        for limit, left in ((40, [30, 10]), (20, [14, 4])):
            await evict_all(owned, limit, world.metrics)
            assert [len(one.table) for one in owned] == left
        went = world.metrics.registry.get_sample_value("headrace_evicted_total", {"stage": "customer"})
        assert went == 22

    run(scenario)
