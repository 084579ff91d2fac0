"""Rounds when the owner changes: the new one takes what is left, the former one touches nothing."""

import pytest

from streams.stores import snapshot_store
from streams.stores.state import Checkpoint, Fenced
from tests.unit.streams.agents.payments import check, run
from tests.unit.streams.stores.snapshot_store.scene import PAYMENTS, Scene, names


def test_a_new_owner_archives_what_the_former_had_not() -> None:
    """It has none of these entities in memory: the store knows which they are."""

    async def scenario() -> None:
        scene = await Scene.started(1)
        await scene.paid(PAYMENTS[:4])
        await scene.archive()
        await scene.paid(PAYMENTS[4:8])
        await scene.start()
        await scene.paid(PAYMENTS[8:9])
        assert await scene.archive() == 6
        scene.forget()
        scene.wipe()
        scene.pay(PAYMENTS[9:])
        await scene.go_on()
        await check(scene.world, PAYMENTS)

    run(scenario)


def test_a_former_owner_archives_nothing() -> None:
    """What the store has is another's by now: its states belong to positions that this owner does not know."""

    async def scenario() -> None:
        scene = await Scene.started(1)
        await scene.paid(PAYMENTS[:4])
        (name,) = names(scene.world.agents[0])
        await scene.redis.claim(name)
        with pytest.raises(Fenced):
            await scene.store.archive(name)
        assert await scene.snapshots.header(name) is None

    run(scenario)


def test_a_former_owner_deletes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is still pruning when another has begun a round is told so before it takes the other's for its own."""
    monkeypatch.setattr(snapshot_store, "_sound", lambda _: True)

    async def scenario() -> None:
        scene = Scene(1)
        claim = await scene.store.claim("p")
        await scene.store.save("p", claim.epoch, Checkpoint(1, b"", 1), [(b"quiet", b"state"), (b"busy", b"state")])
        await scene.store.archive("p")
        await scene.store.save("p", claim.epoch, Checkpoint(2, b"", 2), [(b"busy", b"state")])
        concluded = scene.snapshots.conclude

        async def then_another_takes_over(partition: str, header: Checkpoint) -> None:
            await concluded(partition, header)
            epoch = (await scene.redis.claim(partition)).epoch
            await scene.redis.save(partition, epoch, Checkpoint(3, b"", 3), [(b"quiet", b"state")])
            await scene.redis.begin_round(partition, epoch)  # of which nothing is written yet

        scene.snapshots.conclude = then_another_takes_over  # type: ignore[method-assign]
        with pytest.raises(Fenced):
            await scene.store.archive("p")
        assert list(scene.snapshots.states["p"][b"quiet"]) == [1]

    run(scenario)
