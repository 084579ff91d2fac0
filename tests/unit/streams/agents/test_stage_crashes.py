"""Two stages of which one dies: states and outputs are those of a run in which nothing did."""

import asyncio

import pytest

from streams.runtime.hop import FROM_LABELS
from streams.stores.memory import MemoryStateStore
from streams.stores.state import Checkpoint, Fenced, States
from tests.unit.streams.agents.payments import PAYMENTS, STAGES, START, Payment, check, run, scores, started
from tests.unit.streams.world import CUSTOMER, HOPS, TERMINAL, World


class MortalStore(MemoryStateStore):
    """Dies with its worker: before the next save reaches it, or after."""

    def __init__(self) -> None:
        super().__init__()
        self.dies: str | None = None

    async def save(self, partition: str, epoch: int, checkpoint: Checkpoint, states: States) -> None:
        if self.dies != "before":
            await super().save(partition, epoch, checkpoint, states)
        if self.dies:
            raise asyncio.CancelledError(self.dies)


STEPS = [
    "1: folded, nothing sent",
    "1: folded, some sent",
    "1: folded, all sent",
    "2: copied, not acknowledged",
    "3: acknowledged, not kept",
    "4: kept",
]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("partitions", [1, 3])
def test_a_crash_after_any_step_leaves_no_trace(stage: int, step: str, partitions: int) -> None:
    """The steps of `checkpoint.py`: the next owner ends with the states and outputs of an uninterrupted run."""

    async def scenario() -> None:
        store = MortalStore()
        # Several customer partitions reach a terminal in any order, so there each customer has its terminal.
        payments = [
            Payment(p.id, p.time, p.customer, p.terminal if partitions == 1 else f"t{p.customer}", p.amount)
            for p in PAYMENTS
        ]
        world = await started(payments, partitions, store)
        for before in range(stage + 1):
            for partition in range(partitions):
                await world.step(before, partition, 3)
            await world.checkpoint(before)
        world.senders[stage].automatic = False
        for before in range(stage):
            for partition in range(partitions):
                await world.step(before, partition, 4)
        for partition in range(partitions):
            await world.step(stage, partition, 4)
        await crash(world, store, stage, step)
        await world.finish()
        await check(world, payments)

    run(scenario)


async def crash(world: World, store: MortalStore, stage: int, step: str) -> None:
    """Carry a stage's worker on until `step`, kill it there, and start another."""
    sender = world.senders[stage]
    if step.startswith("1"):
        await world.crash(stage, {"nothing": 0, "some": 1, "all": sender.pending}[step.split()[2]])
        return
    if step.startswith("2"):
        checkpoint = asyncio.create_task(world.checkpoint(stage))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not checkpoint.done()
        checkpoint.cancel()
    else:
        sender.deliver()
        store.dies = "after" if step.startswith("4") else "before"
        checkpoint = asyncio.create_task(world.checkpoint(stage))
    await asyncio.wait([checkpoint])
    assert checkpoint.cancelled()
    store.dies = None
    await world.crash(stage)


def test_a_former_owner_is_fenced_and_its_outputs_dropped() -> None:
    """A worker that does not know it was replaced may send on: nothing counts twice, nothing of it is kept."""

    async def scenario() -> None:
        world = await started(PAYMENTS)
        await world.step(CUSTOMER, 0, 3)
        former, position = world.agents[CUSTOMER], world.positions[CUSTOMER, 0]
        await world.start(CUSTOMER)
        batch = world.broker.fetch(world.topics.events.name, 0, position, 4)
        assert batch
        await former.on_batches([batch])  # its sender is another, the broker the same
        with pytest.raises(Fenced):
            await former.owned[0].checkpoint(world.senders[CUSTOMER])  # type: ignore[arg-type]
        await world.finish()
        await check(world, PAYMENTS)
        seen_twice = world.metrics.registry.get_sample_value("headrace_duplicates_total", {"stage": "terminal"})
        assert seen_twice == 7

    run(scenario)


def test_held_rows_survive_a_crash() -> None:
    """A checkpoint while rows wait for a watermark: the next owner reads those rows again, and folds the rest once."""

    async def scenario() -> None:
        world = await started([])
        world.promise_events(START)
        for payment in PAYMENTS[:6]:
            world.event(payment.fields)
        world.promise_events(PAYMENTS[4].time)
        world.event(PAYMENTS[6].fields)
        world.hop(0, HOPS.watermark(PAYMENTS[4].time, FROM_LABELS, 0, 0))
        await world.finish()
        assert sorted(scores(world)) == ["e0", "e1", "e2", "e3"]
        await world.crash(TERMINAL)
        world.promise_events(None)
        world.hop(0, HOPS.watermark(None, FROM_LABELS, 0, 1))
        await world.finish()
        await check(world, PAYMENTS[:7])
        assert len(world.broker.all(world.topics.scores.name)) == 7

    run(scenario)


def test_a_failed_batch_is_not_kept() -> None:
    """A handler that fails in mid-batch leaves nothing that a checkpoint could keep: the next owner has it all."""

    async def scenario() -> None:
        world = await started(PAYMENTS)
        await world.step(CUSTOMER, 0)
        await world.step(TERMINAL, 0, 3)
        world.agents[TERMINAL].model = None
        with pytest.raises(AssertionError):
            await world.step(TERMINAL, 0, 3)
        await world.checkpoint(TERMINAL)  # as the timer does before the worker has ended
        await world.crash(TERMINAL)
        await world.finish()
        await check(world, PAYMENTS)

    run(scenario)
