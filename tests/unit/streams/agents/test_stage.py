"""Two stages end to end in memory: events become scores, and partitions come and go."""

import asyncio

import pytest

from streams.runtime.checkpoint import evict_all, folding
from tests.unit.streams.agents.payments import PAYMENTS, STAGES, START, check, run, scores, started
from tests.unit.streams.world import CUSTOMER, NOW, TERMINAL, World


def test_events_become_scores() -> None:
    """Every event passes both stages and is scored once, with the backtest's features."""

    async def scenario() -> None:
        world = await started(PAYMENTS)
        await world.finish()
        await check(world, PAYMENTS)
        assert len(world.broker.all(world.topics.scores.name)) == len(PAYMENTS)
        one = scores(world)["e5"]
        assert (one.entities, one.received_at, one.scored_at) == ({"customer": "c2", "terminal": "t1"}, NOW, NOW)
        assert (one.model_id, one.decision) == ("logistic@0", "approve")

    run(scenario)


@pytest.mark.parametrize("most", [1, 3, 7, 100])
def test_an_event_that_a_producer_sends_twice_is_scored_once(most: int) -> None:
    """In one batch or the next, and by the next owner, who finds the ids in the states; each is counted."""

    async def scenario() -> None:
        world = World(1)
        for payment in PAYMENTS:
            world.event(payment.fields)
            world.event(payment.fields)
        world.promise_events(None)
        world.event(PAYMENTS[-1].fields)
        for stage in STAGES:
            await world.start(stage)
        while await world.step(CUSTOMER, 0, most):
            await world.checkpoint(CUSTOMER)
            await world.crash(CUSTOMER, written=100)
        await world.finish()
        await check(world, PAYMENTS)
        assert len(world.broker.all(world.topics.scores.name)) == len(PAYMENTS)
        twice = world.metrics.registry.get_sample_value("headrace_duplicates_total", {"stage": "customer"})
        assert twice == len(PAYMENTS) + 1

    run(scenario)


def test_entities_come_and_go_without_a_trace() -> None:
    """With room for one entity alone, every event finds its entity in the store, as if it had stayed."""

    async def scenario() -> None:
        world = await started(PAYMENTS)
        for stage in STAGES:
            while await world.step(stage, 0, 2):
                await world.checkpoint(stage)
                await evict_all(list(world.agents[stage].owned.values()), 1, world.metrics)
                assert len(world.states(stage)) <= 1
        await world.finish()
        await check(world, PAYMENTS)

    run(scenario)


def test_a_gate_that_waits_in_vain_gives_up() -> None:
    """Rows held for a source that never promises go on after a while, and only then."""

    async def scenario() -> None:
        world = await started([])
        world.promise_events(START)
        for payment in PAYMENTS:
            world.event(payment.fields)
        await world.finish()
        agent = world.agents[TERMINAL]
        assert scores(world) == {}
        await agent.give_up_late_watermarks(patience=3600)
        assert scores(world) == {}
        agent.show(world.metrics)
        held = {"stage": "terminal", "partition": "0"}
        assert world.metrics.registry.get_sample_value("headrace_held_records", held) == len(PAYMENTS)
        await agent.give_up_late_watermarks(patience=0)
        await world.checkpoint(TERMINAL)
        await check(world, PAYMENTS)

    run(scenario)


def test_a_partition_given_up_meanwhile_is_left_alone() -> None:
    """A worker that waited to give up on watermarks does not fold for a partition it no longer owns."""

    async def scenario() -> None:
        world = await started([])
        world.promise_events(START)
        world.event(PAYMENTS[0].fields)
        await world.finish()
        agent = world.agents[TERMINAL]
        async with folding(agent.owned[0]):
            giving_up = asyncio.create_task(agent.give_up_late_watermarks(patience=0))
            await asyncio.sleep(0)
            agent.release(0)
        await giving_up
        assert scores(world) == {}

    run(scenario)


def test_a_released_partition_is_not_kept() -> None:
    """A round of checkpoints that has the partition still to come passes it over once it is released."""

    async def scenario() -> None:
        world = await started(PAYMENTS)
        await world.step(CUSTOMER, 0)
        agent = world.agents[CUSTOMER]
        owned = agent.owned[0]
        assert owned.age() > 0
        agent.release(0)
        agent.release(0)  # as when a claim is cancelled
        assert await owned.checkpoint(world.senders[CUSTOMER]) is None  # type: ignore[arg-type]
        assert owned.kept_offset == -1

    run(scenario)
