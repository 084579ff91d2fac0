"""Two stages to which anything happens at any time: the result is the backtest's."""

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.features.spec import DAY, HOUR
from streams.runtime.hop import FROM_LABELS
from tests.unit.streams.agents.payments import STAGES, START, Payment, check, run
from tests.unit.streams.world import HOPS, World, label_rows


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
