"""State that is damaged, lost or older than its worker is rebuilt from Kafka, and no feature shows it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from streams.features.table import StateRefused
from streams.stores.memory import Kept, MemoryStateStore
from streams.stores.state import Fenced
from tests.unit.streams.agents import payments as base
from tests.unit.streams.agents.payments import STAGES, check, run, scores, started
from tests.unit.streams.world import TERMINAL, World

Harm = Callable[[Kept], Kept]

# Several customer partitions reach a terminal in any order, so here each customer has its terminal.
PAYMENTS = [replace(payment, terminal=f"t{payment.customer}") for payment in base.PAYMENTS]


def flipped(bytes_: bytes, at: int) -> bytes:
    return bytes_[:at] + bytes([bytes_[at] ^ 16]) + bytes_[at + 1 :]


def every_state(change: Callable[[bytes], bytes]) -> Harm:
    return lambda kept: replace(kept, states={key: change(state) for key, state in kept.states.items()})


def the_record(change: Callable[[bytes], bytes]) -> Harm:
    return lambda kept: replace(kept, record=kept.record and change(kept.record))


async def half_done(partitions: int) -> tuple[World, MemoryStateStore]:
    """A world in which all payments but four have been scored and kept; then both workers are replaced."""
    store = MemoryStateStore()
    world = await started(PAYMENTS[:-4], partitions, store)
    await world.finish()
    for payment in PAYMENTS[-4:]:
        world.event(payment.fields)
    for stage in STAGES:
        await world.start(stage)
    return world, store


def harmed(world: World, store: MemoryStateStore, stage: int, harm: Harm) -> int:
    """Do harm to every partition of a stage that was kept, and return how many were."""
    kept = [owned.name for owned in world.agents[stage].owned.values() if store.kept[owned.name].record]
    for name in kept:
        store.kept[name] = harm(store.kept[name])
    return len(kept)


async def finish_with_replacements(world: World, *refusals: type[Exception]) -> int:
    """Work to the end; replace a worker whenever it ends with one of `refusals`, and return how often one did."""
    ended = 0
    while True:
        try:
            await world.finish()
            return ended
        except refusals:
            ended += 1
            assert ended < 20
            for stage in STAGES:
                await world.start(stage)


def refused(world: World, stage: int) -> float:
    name = ("customer", "terminal")[stage]
    return world.metrics.registry.get_sample_value("headrace_states_refused_total", {"stage": name}) or 0.0


HARMS = {
    "states flipped": every_state(lambda state: flipped(state, len(state) - 1)),
    "fingerprints flipped": every_state(lambda state: flipped(state, 0)),
    "states cut off": every_state(lambda state: state[:-8]),
    "states emptied": every_state(lambda state: b""),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("partitions", [1, 3])
def test_damaged_states_are_set_aside_and_rebuilt(stage: int, harm: str, partitions: int) -> None:
    """The worker that meets one ends; its replacement folds the partition anew, and everything is exact."""

    async def scenario() -> None:
        world, store = await half_done(partitions)
        harmed(world, store, stage, HARMS[harm])
        assert await finish_with_replacements(world, StateRefused, Fenced) > 0
        await check(world, PAYMENTS)
        assert refused(world, stage) == len(store.refused) > 0

    run(scenario)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("partitions", [1, 3])
def test_a_damaged_checkpoint_is_set_aside_and_rebuilt(stage: int, partitions: int) -> None:
    """The worker that claims it says so and goes on from the beginning: no second one is needed."""

    async def scenario() -> None:
        world, store = await half_done(partitions)
        count = harmed(world, store, stage, the_record(lambda record: flipped(record, 0)))
        for each in STAGES:
            await world.start(each)
        assert {world.positions[stage, partition] for partition in range(partitions)} == {0}
        assert await finish_with_replacements(world) == 0
        await check(world, PAYMENTS)
        assert refused(world, stage) == count > 0

    run(scenario)


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("wiped", [True, False])
def test_a_store_that_lost_writes_under_live_workers_changes_nothing(partitions: int, wiped: bool) -> None:
    """Wiped or restored from an older moment: its owners are fenced before they take a lost state for a new one."""

    async def scenario() -> None:
        store = MemoryStateStore()
        world = await started(PAYMENTS[:6], partitions, store)
        await world.finish()
        older = {} if wiped else dict(store.kept)
        for payment in PAYMENTS[6:-4]:
            world.event(payment.fields)
        for stage in STAGES:
            await world.start(stage)
        await world.finish()
        for stage in STAGES:
            await world.start(stage)  # who has nothing in memory
        store.kept = older
        for payment in PAYMENTS[-4:]:
            world.event(payment.fields)
        before = len(world.broker.all(world.topics.scores.name))
        with pytest.raises(Fenced):
            await world.finish()
        assert len(world.broker.all(world.topics.scores.name)) == before
        for stage in STAGES:
            await world.start(stage)
        assert await finish_with_replacements(world, Fenced) == 0
        await check(world, PAYMENTS)
        assert len(scores(world)) == len(PAYMENTS)

    run(scenario)


def test_rows_that_a_rebuild_sends_again_are_dropped() -> None:
    """The first stage begins anew, the second does not: it has seen every row."""

    async def scenario() -> None:
        world, store = await half_done(1)
        harmed(world, store, 0, the_record(lambda record: b""))
        await world.start(0)
        kept = list(store.kept.values())[TERMINAL].record
        await world.finish()
        await check(world, PAYMENTS)
        assert world.agents[TERMINAL]._gates.duplicates == len(PAYMENTS) - 4
        assert list(store.kept.values())[TERMINAL].record != kept

    run(scenario)
