"""The checkpoint protocol: everything of a checkpoint or nothing, after the outputs."""

import asyncio

import pytest

from streams.runtime.checkpoint import checkpoint_all, folding
from streams.runtime.sender import UndeliveredError
from tests.unit.streams.runtime.checkpointing import WatchedStore, fold, idle, owner, run, sending
from tests.unit.streams.world import World


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
