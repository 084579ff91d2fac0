"""Two stages end to end in memory: whatever dies when, states and outputs are those of a run in which nothing did.

What nothing-died looks like is the backtest's pipeline: features and states must equal it bit for bit.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import Score
from streams.features.pipeline import Events, Labels, Pipeline
from streams.features.spec import DAY, HOUR
from streams.runtime.checkpoint import evict_all, folding
from streams.runtime.dlq import ERROR, MESSAGE, SOURCE
from streams.runtime.hop import FROM_LABELS, HopFormat
from streams.stores.memory import MemoryStateStore
from streams.stores.state import Checkpoint, Fenced, States
from streams.usecases import FRAUD
from tests.unit.streams.world import CUSTOMER, HOPS, NOW, TERMINAL, Message, World, label_rows
from tests.wider import WIDER

START = NOW - 60 * DAY
STAGES = (CUSTOMER, TERMINAL)
decode = msgspec.json.Decoder(Score).decode


@dataclass(frozen=True)
class Payment:
    """A transaction, and after `delay` its label."""

    id: str
    time: int
    customer: str
    terminal: str
    amount: float
    label: int = 0
    delay: int | None = None

    @property
    def fields(self) -> dict[str, object]:
        return {
            "event_id": self.id,
            "event_time": self.time,
            "customer_id": self.customer,
            "terminal_id": self.terminal,
            "amount": self.amount,
        }


def expected(payments: Sequence[Payment]) -> tuple[dict[str, bytes], list[dict[bytes, bytes]]]:
    """Each event's feature vector as bytes and each stage's states, by the backtest's pipeline."""
    labelled = sorted((p for p in payments if p.delay is not None), key=lambda p: p.time + (p.delay or 0))

    def keys(rows: Sequence[Payment]) -> dict[str, list[bytes]]:
        return {"customer": [p.customer.encode() for p in rows], "terminal": [p.terminal.encode() for p in rows]}

    def ids(rows: Sequence[Payment]) -> list[bytes]:
        return [p.id.encode() for p in rows]

    times = np.array([p.time for p in payments], np.int64)
    events = Events(ids(payments), times, keys(payments), np.array([[p.amount] for p in payments]).reshape(-1, 1))
    known = np.array([p.time + (p.delay or 0) for p in labelled], np.int64)
    labels = Labels(ids(labelled), known, keys(labelled), np.array([p.label for p in labelled], np.float64))
    pipeline = Pipeline(FRAUD.features)
    vectors = pipeline.fold(events, labels)
    return (
        {p.id: vector.tobytes() for p, vector in zip(payments, vectors, strict=True)},
        [table.states() for table in pipeline.tables],
    )


def scores(world: World) -> dict[str, Score]:
    """The scores by event; one that was written twice is the same both times."""
    found = dict[str, Score]()
    for message in world.broker.all(world.topics.scores.name):
        score = decode(message.value or b"")
        assert found.setdefault(score.event_id, score) == score
    return found


async def check(world: World, payments: Sequence[Payment]) -> None:
    """Compare scores, states in memory and states in the store with the backtest's."""
    vectors, states = expected(payments)
    found = {id_: np.array(list(score.features.values())).tobytes() for id_, score in scores(world).items()}
    assert found == vectors
    for stage in STAGES:
        kept = await world.kept(stage, list(states[stage]))
        assert kept == states[stage]
        in_memory = world.states(stage)
        assert in_memory == {key: states[stage][key] for key in in_memory}


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 60))


PAYMENTS = [
    Payment(f"e{i}", START + i * HOUR, f"c{i % 3}", f"t{i % 4}", 10.0 + i / 7) for i in range(12)
]  # fmt: skip


async def started(payments: Sequence[Payment], partitions: int = 1, store: MemoryStateStore | None = None) -> World:
    world = World(partitions, store)
    for payment in payments:
        world.event(payment.fields)
    for stage in STAGES:
        await world.start(stage)
    return world


# One step after the other.


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


def test_poison_is_buried_and_the_rest_goes_on() -> None:
    """Poison on the public topic and on the hop goes to the dead letters, counted, and the others are scored."""

    async def scenario() -> None:
        world = await started(PAYMENTS[:6])
        log = world.broker.logs[world.topics.events.name, 0]
        log.insert(2, Message(b"c", b"\xff{"))
        log.insert(4, Message(None, None))
        world.broker.logs[world.topics.hops[0].name, 0].append(Message(b"t", b"not a hop"))
        await world.finish()
        await check(world, PAYMENTS[:6])
        letters = world.broker.all(world.topics.dlq.name)
        assert sorted((one.value or b"", dict(one.headers)[SOURCE]) for one in letters) == [
            (b"", b"fraud.transactions/0/4"),
            (b"not a hop", b"fraud.by-terminal/0/0"),
            (b"\xff{", b"fraud.transactions/0/2"),
        ]
        counted = [
            world.metrics.registry.get_sample_value("headrace_dlq_total", {"reason": reason})
            for reason in ("null", "undecodable")
        ]
        assert counted == [1, 2]

    run(scenario)


def test_a_row_of_a_source_that_there_is_not_is_buried() -> None:
    """What a hop message says of its source is not trusted: the stage goes on, and the row says why it did not."""

    async def scenario() -> None:
        world = await started(PAYMENTS[:6])
        foreign = label_rows("t1", "e1", 1, NOW, partition=1, offset=0)
        world.hop(0, foreign)
        world.broker.logs[world.topics.hops[0].name, 0].insert(0, Message(b"t", b"not a hop"))
        await world.finish()
        await check(world, PAYMENTS[:6])
        letters = [dict(one.headers) for one in world.broker.all(world.topics.dlq.name)]
        assert [(one[SOURCE], one[MESSAGE]) for one in letters] == [
            (b"fraud.by-terminal/0/0", b"not a hop message"),
            (b"fraud.by-terminal/0/1", b"from partition 1 of a source with 1"),
        ]

    run(scenario)


def test_a_row_of_another_feature_set_is_buried_by_that_name() -> None:
    """Features of another declaration are never taken for ours, and the row says whose it is."""

    async def scenario() -> None:
        world = await started(PAYMENTS[:6])
        theirs = HopFormat(WIDER.features, 1)
        row = theirs.label_updates(1, ["t1"], ["e1"], [1], np.array([NOW]), 0, np.array([0]))
        world.broker.logs[world.topics.hops[0].name, 0].append(Message(b"t1", theirs.encode(row).to_list()[0]))
        await world.finish()
        await check(world, PAYMENTS[:6])
        [letter] = [dict(one.headers) for one in world.broker.all(world.topics.dlq.name)]
        assert letter[ERROR] == b"foreign_features"
        assert WIDER.features.fingerprint.encode() in (letter[MESSAGE] or b"")

    run(scenario)


def test_the_dead_letters_of_a_batch_travel_together() -> None:
    """However much of a fetched batch is garbage, it is one thing that a checkpoint waits for."""

    async def scenario() -> None:
        world = await started([])
        await world.start(CUSTOMER, automatic=False)
        world.broker.logs[world.topics.events.name, 0] += [Message(None, b"garbage")] * 500
        await world.step(CUSTOMER, 0)
        assert world.senders[CUSTOMER].pending == 1
        world.senders[CUSTOMER].deliver()
        assert len(world.broker.all(world.topics.dlq.name)) == 500

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


# Anything at any time.


@st.composite
def histories(draw: st.DrawFn) -> list[Payment]:
    """Payments in time order, some at the same moment, some labelled."""
    gaps = st.sampled_from([0, 1, HOUR, DAY, 9 * DAY])
    payments, time = [], START
    for number in range(draw(st.integers(1, 12))):
        time += draw(gaps)
        payments.append(
            Payment(
                f"{draw(st.sampled_from('zaé'))}{number}",
                time,
                draw(st.sampled_from(["c1", "c2", "ключ", "c4"])),
                draw(st.sampled_from(["t1", "t2", "t3"])),
                draw(st.floats(0.01, 1000.0)),
                draw(st.integers(0, 1)),
                draw(st.none() | st.sampled_from([1, HOUR, DAY])),
            )
        )
    return payments


class Producers:
    """Sends events, labels and watermarks as a replay and the join do, each label source at its own pace."""

    def __init__(self, world: World, payments: Sequence[Payment], mark_every: int) -> None:
        self.world = world
        self.said: list[list[tuple[str, Payment | None, int | None]]] = [[] for _ in range(world.partitions)]
        self.told = [0] * world.partitions
        moments = [(p.time, 1, "event", p) for p in payments]
        moments += [(p.time + p.delay, 0, "label", p) for p in payments if p.delay is not None]
        moments.sort(key=lambda moment: moment[:2])
        self._promise(moments[0][0])
        for number, (time, _, what, payment) in enumerate(moments):
            if number % mark_every == 0:
                self._promise(time)
            if what == "event":
                world.event(payment.fields)
            else:
                self.said[world.place(payment.id.encode())].append(("label", payment, time))
        self._promise(None)

    def _promise(self, time: int | None) -> None:
        self.world.promise_events(time)
        for said in self.said:
            said.append(("promise", None, time))

    def join(self, partition: int, most: int, again: int = 0) -> None:
        """Pass on so many more of a label partition, after repeating the last `again`."""
        world, start = self.world, max(0, self.told[partition] - again)
        stop = min(self.told[partition] + most, len(self.said[partition]))
        self.told[partition] = stop
        for offset in range(start, stop):
            _, payment, time = self.said[partition][offset]
            if payment is None:
                for target in range(world.partitions):
                    world.hop(target, HOPS.watermark(time, FROM_LABELS, partition, offset))
            else:
                assert time is not None
                rows = label_rows(payment.terminal, payment.id, payment.label, time, partition, offset)
                world.hop(world.place(payment.terminal.encode()), rows)


small, size = st.integers(0, 5), st.sampled_from([1, 3, 50])
stage_numbers = st.sampled_from(STAGES)
actions = st.one_of(
    st.tuples(st.just("work"), stage_numbers, small, size),
    st.tuples(st.just("pass"), stage_numbers, small, size),
    st.tuples(st.just("acknowledge"), stage_numbers, small, small),
    st.tuples(st.just("join"), small, size, small),
    st.tuples(st.just("checkpoint"), stage_numbers, small, small),
    st.tuples(st.just("crash"), stage_numbers, small, small),
)


@settings(deadline=None, max_examples=150)
@given(histories(), st.integers(1, 3), st.integers(1, 6), st.lists(actions, min_size=8, max_size=40))
def test_whatever_happens_the_result_is_the_backtests(
    payments: list[Payment], partitions: int, mark_every: int, script: list[tuple[str, int, int, int]]
) -> None:
    """Batches of any size in any order, acknowledgements late, checkpoints and crashes anywhere, a join that
    repeats itself: scores and states equal the backtest's, bit for bit."""

    async def scenario() -> None:
        world = World(partitions)
        producers = Producers(world, payments, mark_every)
        for stage in STAGES:
            await world.start(stage, automatic=False)
        for what, a, b, c in script:
            match what:
                case "work":
                    await world.step(a, b % partitions, c)
                case "pass":
                    for partition in range(partitions):
                        await world.step(a, partition, c)
                    world.senders[a].deliver()
                case "acknowledge":
                    world.senders[a].deliver(b)
                case "join":
                    producers.join(a % partitions, b, again=c)
                case "crash":
                    await world.crash(a, written=b)
                case "checkpoint":
                    await checkpoint_as_acknowledged(world, a)
        for partition in range(partitions):
            producers.join(partition, 1 << 30)
        await world.finish()
        await check(world, payments)

    run(scenario)


async def checkpoint_as_acknowledged(world: World, stage: int) -> None:
    """Checkpoint while the acknowledgements come one by one."""
    checkpoint = asyncio.create_task(world.checkpoint(stage))
    while not checkpoint.done():
        await asyncio.sleep(0)
        world.senders[stage].deliver(1)
    await checkpoint
