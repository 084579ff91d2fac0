"""Checkpoints and whose they are: by the owner alone, and the next one goes on from them."""

import asyncio

import pytest

from streams.features.table import StateRefused
from streams.runtime.checkpoint import folding
from streams.stores.state import Checkpoint, Fenced
from tests.unit.streams.runtime.checkpointing import NAME, WatchedStore, fold, idle, owner, run, sending


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
