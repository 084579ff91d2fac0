"""Entities that leave the memory: only what is kept goes, and it comes back as it was."""

import asyncio

from streams.runtime.checkpoint import checkpoint_all, evict_all
from tests.unit.streams.runtime.checkpointing import WatchedStore, fold, idle, owner, run, sending
from tests.unit.streams.world import World


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
