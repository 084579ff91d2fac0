"""What a claim restores: the snapshot, and what Kafka has after it; or neither, which is told."""

import pytest

from streams.stores.state import SnapshotsUnavailable
from tests.unit.streams.agents.payments import check, run
from tests.unit.streams.stores.snapshot_store.scene import PAYMENTS, Scene


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("rounds", [1, 2, 4])
def test_a_partition_that_only_the_snapshot_knows_goes_on_from_it(partitions: int, rounds: int) -> None:
    """Redis is wiped and Kafka's retention was too short: with the snapshot every feature is exact."""

    async def scenario() -> None:
        scene = await Scene.started(partitions)
        for part in range(rounds):
            await scene.paid(PAYMENTS[8 * part // rounds : 8 * (part + 1) // rounds])
            assert await scene.archive() > 0
            assert await scene.archive() == 0
        scene.forget()
        scene.wipe()
        scene.pay(PAYMENTS[8:])
        await scene.go_on()
        await check(scene.world, PAYMENTS)

    run(scenario)


def test_what_came_after_the_snapshot_comes_from_kafka() -> None:
    """The rows that are sent again are dropped where they have been seen."""

    async def scenario() -> None:
        scene = await Scene.started(1)
        await scene.paid(PAYMENTS[:5])
        await scene.archive()
        scene.forget()
        await scene.paid(PAYMENTS[5:9])
        scene.wipe()
        scene.pay(PAYMENTS[9:])
        await scene.go_on()
        await check(scene.world, PAYMENTS)

    run(scenario)


def test_a_snapshot_that_is_replaced_while_it_is_read_is_read_again() -> None:
    """A former owner concludes a newer one and deletes what the older needs: no mixture is restored."""

    async def scenario() -> None:
        scene = await Scene.started(1)
        await scene.paid(PAYMENTS[:6])
        await scene.archive()
        older = {name: dict(states) for name, states in scene.snapshots.states.items()}
        records = dict(scene.snapshots.records)
        await scene.paid(PAYMENTS[6:8])
        await scene.archive()
        newer, scene.snapshots.records = scene.snapshots.records, records
        rows = scene.snapshots.rows
        reads = list[int]()

        def concluded_meanwhile(partition: str, position: int):  # type: ignore[no-untyped-def]
            reads.append(position)
            scene.snapshots.records = newer
            return rows(partition, position)

        scene.snapshots.rows = concluded_meanwhile  # type: ignore[method-assign]
        assert older != scene.snapshots.states
        scene.forget()
        scene.wipe()
        scene.pay(PAYMENTS[8:])
        await scene.start()
        assert reads == [6, 8, 8]
        await scene.finish()
        await check(scene.world, PAYMENTS)

    run(scenario)


def test_snapshots_that_cannot_be_asked_hold_up_only_what_needs_them() -> None:
    """Kafka has the whole log: rebuilt from there. It has not: they are waited for."""

    async def scenario() -> None:
        for begin in (0, 5):
            scene = Scene(1, begin)
            scene.snapshots.away = True
            if not begin:
                assert (await scene.store.claim("p")).checkpoint is None
            else:
                with pytest.raises(SnapshotsUnavailable):
                    await scene.store.claim("p")

    run(scenario)


def test_a_gap_that_nothing_fills_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Neither Redis nor Cassandra has the partition, and Kafka only its end: one warning names where that begins."""

    async def scenario() -> None:
        assert (await Scene(1, begin=5).store.claim("p")).checkpoint is None
        assert [record.getMessage() for record in caplog.records if "offset 5 on" in record.getMessage()]
        caplog.clear()
        assert (await Scene(1).store.claim("p")).checkpoint is None
        assert not caplog.records

    run(scenario)
