"""A damaged state is not archived, and a damaged snapshot is not used."""

from dataclasses import replace

import pytest

from streams.features.table import StateRefused
from tests.unit.streams.agents.payments import check, run
from tests.unit.streams.stores.snapshot_store.scene import PAYMENTS, Scene, names


def test_a_damaged_state_is_not_archived() -> None:
    """It is set aside, its partition with it, and the snapshot of before is what it is rebuilt from."""

    async def scenario() -> None:
        scene = await Scene.started(1)
        await scene.paid(PAYMENTS[:8])
        await scene.archive()
        scene.forget()
        await scene.paid(PAYMENTS[8:])
        (name,) = names(scene.world.agents[0])
        kept = scene.redis.kept[name]
        scene.redis.kept[name] = replace(kept, states={key: b"?" + state[1:] for key, state in kept.states.items()})
        with pytest.raises(StateRefused, match=f"{name}: .*damaged.* it is kept as .*:refused:"):
            await scene.store.archive(name)
        await scene.go_on()
        await check(scene.world, PAYMENTS)

    run(scenario)


@pytest.mark.parametrize("what", ["a row", "the header"])
def test_a_damaged_snapshot_is_not_used(what: str) -> None:
    """Nothing of it counts; the partition begins anew, with what Kafka has."""

    async def scenario() -> None:
        scene = await Scene.started(1)
        await scene.paid(PAYMENTS[:8])
        await scene.archive()
        for name in scene.snapshots.records:
            if what == "a row":
                rows = scene.snapshots.states[name][max(scene.snapshots.states[name])]
                rows[max(rows)] = b"?" + rows[max(rows)][1:]
            else:
                scene.snapshots.records[name] = (8, b"?" + scene.snapshots.records[name][1][1:])
        scene.wipe()
        await scene.start()
        assert set(scene.world.positions.values()) == {0}
        await scene.paid(PAYMENTS[8:])
        await check(scene.world, PAYMENTS)
        aside = [name for name in scene.snapshots.states if name.endswith(":refused")]
        assert len(aside) == (2 if what == "a row" else 0)
        await scene.archive()
        scene.forget()
        scene.wipe()
        await scene.start()  # from the snapshot, which is sound again
        await scene.finish()
        await check(scene.world, PAYMENTS)

    run(scenario)
