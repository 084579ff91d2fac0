"""A round of archiving: what it takes, wherever it breaks off, and while saves go on."""

import asyncio
from contextlib import suppress

import pytest

from streams.stores.memory import MemoryStateStore
from streams.stores.state import Checkpoint, StoreUnavailable
from tests.unit.streams.agents.payments import check, run
from tests.unit.streams.stores.snapshot_store.scene import PAYMENTS, Died, Scene, names
from tests.unit.streams.world import Message


def test_a_round_takes_only_what_has_changed() -> None:
    """One entity of each stage has an event: one state of each is written."""

    async def scenario() -> None:
        scene = await Scene.started(1)
        await scene.paid(PAYMENTS[:9])
        assert await scene.archive() == 6
        await scene.paid(PAYMENTS[9:10])
        assert await scene.archive() == 2
        versions = [len(rows) for states in scene.snapshots.states.values() for rows in states.values()]
        assert versions == [1] * 6  # what they replace has been deleted

    run(scenario)


@pytest.mark.parametrize("writes", [1, 2, 3, 4])
def test_a_round_that_breaks_off_changes_nothing(writes: int) -> None:
    """A worker dies between any two writes: the last header stands, and the next round has what this one had."""

    async def scenario() -> None:
        scene = await Scene.started(1)
        await scene.paid(PAYMENTS[:4])
        await scene.archive()
        scene.forget()
        await scene.paid(PAYMENTS[4:8])
        scene.snapshots.until = writes - 1
        with pytest.raises(Died):
            await scene.archive()
        scene.snapshots.until = None
        kept = dict(scene.redis.kept)
        scene.wipe()
        await scene.start()
        await scene.paid(PAYMENTS[8:])
        await check(scene.world, PAYMENTS)
        scene.redis.kept = kept  # the other future: only the worker had died
        await scene.go_on()
        await scene.archive()
        scene.forget()
        scene.wipe()
        await scene.go_on()
        await check(scene.world, PAYMENTS)

    run(scenario)


def test_saves_go_on_while_a_round_is_made() -> None:
    """What they change is in the snapshot as of one of them: neither before nor after it."""

    async def scenario() -> None:
        scene = await Scene.started(1)
        await scene.paid(PAYMENTS[:6])
        coming = iter(PAYMENTS[6:10])

        async def another() -> None:
            await scene.paid([payment] if (payment := next(coming, None)) else [])

        scene.snapshots.on_write = another
        customer, terminal = [name for agent in scene.world.agents.values() for name in names(agent)]
        await scene.store.archive(customer)
        header = await scene.snapshots.header(customer)
        assert header
        assert 6 < header.position < 10
        await scene.store.archive(terminal)
        scene.pay([*coming, *PAYMENTS[10:]])
        log = scene.world.broker.logs[scene.world.topics.events.name, 0]
        log[: header.position] = [Message(b"gone", b"gone")] * header.position
        scene.wipe()
        await scene.go_on()
        await check(scene.world, PAYMENTS)

    run(scenario)


@pytest.mark.parametrize("writes", range(1, 7))
def test_a_round_may_end_anywhere_while_saves_go_on(writes: int) -> None:
    """Killed after any of its writes, Redis lost with it: whatever header stands, its rows are all there."""

    async def scenario() -> None:
        scene = await Scene.started(1)
        await scene.paid(PAYMENTS[:4])
        await scene.archive()
        await scene.paid(PAYMENTS[4:7])
        coming = iter(PAYMENTS[7:])

        async def another() -> None:
            await scene.paid([payment] if (payment := next(coming, None)) else [])

        scene.snapshots.on_write, scene.snapshots.until = another, writes
        with suppress(Died):
            await scene.archive()
        scene.snapshots.on_write, scene.snapshots.until = None, None
        await scene.forget_archived()
        scene.wipe()
        scene.pay(list(coming))
        await scene.go_on()
        await check(scene.world, PAYMENTS)

    run(scenario)


def test_a_save_in_doubt_is_waited_out() -> None:
    """It may have been kept or not, so of what position the states are cannot be said; the next save tells."""

    class Doubtful(MemoryStateStore):
        failing = False

        async def save(self, *args: object) -> None:
            await super().save(*args)  # type: ignore[arg-type]
            if self.failing:
                raise StoreUnavailable("no answer")

    async def scenario() -> None:
        scene = Scene(1)
        store = Doubtful()
        scene.store._store = store
        claim = await scene.store.claim("p")
        await scene.store.save("p", claim.epoch, Checkpoint(1, b"", 1), [])
        store.failing = True
        with pytest.raises(StoreUnavailable):
            await scene.store.save("p", claim.epoch, Checkpoint(2, b"", 2), [])
        assert await scene.store.archive("p") is None
        store.failing = False
        await scene.store.save("p", claim.epoch, Checkpoint(3, b"", 3), [])
        assert await scene.store.archive("p") == 0
        assert await scene.snapshots.header("p") == Checkpoint(3, b"", 3)

    asyncio.run(asyncio.wait_for(scenario(), 10))
