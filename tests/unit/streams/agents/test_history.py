"""The history agent and its lanes: each partition in order, nothing committed that is not kept."""

import asyncio
from collections.abc import AsyncGenerator, Callable

import numpy as np
import pytest
from faust.types import TP

from schemas.codec import encode
from schemas.events import Score
from streams.agents.history import read_scores
from streams.runtime import lanes as lanes_module
from streams.runtime.batches import Batch
from streams.runtime.lanes import Lanes
from streams.runtime.records import Records

NOW = 1_000_000


def batch(partition: int, first: int, count: int = 1) -> Batch:
    records = Records.of([None] * count, [b"{}"] * count, range(first, first + count), [1] * count)
    return Batch("topic", partition, records, first + count, generation=1)


class App:
    """What lanes ask of a BatchApp, written down."""

    def __init__(self) -> None:
        self.committed: list[tuple[int, int]] = []
        self.paused: set[int] = set()
        self.crashes: list[Exception] = []
        self.refusals = 0

    async def commit_positions(self, positions: dict[TP, int]) -> bool:
        self.refusals -= 1
        if self.refusals >= 0:
            return False
        self.committed += [(tp.partition, offset) for tp, offset in positions.items()]
        return True

    def pause(self, partitions: list[TP]) -> None:
        self.paused |= {tp.partition for tp in partitions}

    def resume(self, partitions: list[TP]) -> None:
        self.paused -= {tp.partition for tp in partitions}

    async def crash(self, error: Exception) -> None:
        self.crashes.append(error)


class Work:
    """Work that is done when the test says so."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, int]] = []
        self.gates: dict[tuple[int, int], asyncio.Event] = {}

    async def __call__(self, batch: Batch) -> AsyncGenerator[int | None, None]:
        place = batch.partition, int(batch.records.offsets[0])
        self.begun.append(place)
        await self.gate(*place).wait()
        yield batch.next_offset

    def gate(self, partition: int, first: int) -> asyncio.Event:
        return self.gates.setdefault((partition, first), asyncio.Event())


async def until(truth: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not truth():  # noqa: ASYNC110  # what is awaited has no event
            await asyncio.sleep(0)


def test_a_partition_is_in_order_and_holds_up_no_other() -> None:
    """A batch starts when the one before it is done and committed; another partition goes on meanwhile."""

    async def scenario() -> None:
        app, work = App(), Work()
        lanes = Lanes(app, work)  # type: ignore[arg-type]
        for one in batch(0, 0), batch(0, 1), batch(1, 0):
            await lanes.put(one)
        await until(lambda: len(work.begun) == 2)
        assert work.begun == [(0, 0), (1, 0)]
        work.gate(1, 0).set()
        await until(lambda: app.committed == [(1, 1)])
        assert (0, 1) not in work.begun
        work.gate(0, 0).set()
        await until(lambda: (0, 1) in work.begun)
        assert app.committed == [(1, 1), (0, 1)]
        work.gate(0, 1).set()
        await until(lambda: lanes.done == {TP("topic", 0): 2, TP("topic", 1): 1})
        assert app.committed[-1] == (0, 2)

    asyncio.run(scenario())


def test_a_partition_that_waits_is_paused() -> None:
    """With a batch in hand and more than one waiting no more is taken, until the lane has moved on."""

    async def scenario() -> None:
        app, work = App(), Work()
        lanes = Lanes(app, work)  # type: ignore[arg-type]
        await lanes.put(batch(0, 0))
        await until(lambda: bool(work.begun))
        await lanes.put(batch(0, 1))
        assert not app.paused
        await lanes.put(batch(0, 2))
        assert app.paused == {0}
        work.gate(0, 0).set()
        await until(lambda: (0, 1) in work.begun)
        assert not app.paused

    asyncio.run(scenario())


def test_what_fails_ends_the_worker_and_nothing_is_committed_past_it() -> None:
    """When work raises, the app is told, and later batches of the topic neither start nor count."""

    async def work(batch: Batch) -> AsyncGenerator[int | None, None]:
        if batch.records.offsets[0] == 0:
            raise ValueError("broken")
        yield batch.next_offset

    async def scenario() -> None:
        app = App()
        lanes = Lanes(app, work)  # type: ignore[arg-type]
        await lanes.put(batch(0, 0))
        await lanes.put(batch(0, 1))
        await until(lambda: bool(app.crashes))
        await lanes.put(batch(0, 2))
        await asyncio.sleep(0.01)
        assert not app.committed
        assert [str(error) for error in app.crashes] == ["broken"]

    asyncio.run(scenario())


def test_who_waits_gives_way_to_the_next_batch() -> None:
    """Work that says None is left when a batch has come, and not before; what was left is not committed."""
    left: list[int] = []

    async def work(batch: Batch) -> AsyncGenerator[int | None, None]:
        first = int(batch.records.offsets[0])
        try:
            while first == 0:
                yield None
                await asyncio.sleep(0.001)
            yield batch.next_offset
        finally:
            left.append(first)

    async def scenario() -> None:
        app = App()
        lanes = Lanes(app, work)  # type: ignore[arg-type]
        await lanes.put(batch(0, 0))
        await asyncio.sleep(0.02)
        assert left == []
        assert lanes.standing(TP("topic", 0), 1).offset == 1  # who waits is not behind
        await lanes.put(batch(0, 1))
        await until(lambda: left == [0, 1])
        assert app.committed == [(0, 2)]

    asyncio.run(scenario())


def test_a_commit_that_fails_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka is away for a while: nothing counts as done before it is committed, and then nothing is left out."""
    monkeypatch.setattr(lanes_module, "COMMIT_AGAIN_SECONDS", 0.001)

    async def scenario() -> None:
        app, work = App(), Work()
        app.refusals = 3
        lanes = Lanes(app, work)  # type: ignore[arg-type]
        for first in 0, 1:
            work.gate(0, first).set()
            await lanes.put(batch(0, first))
        await until(lambda: work.begun == [(0, 0), (0, 1)])
        assert app.refusals < 0
        await until(lambda: lanes.done == {TP("topic", 0): 2})
        assert app.committed == [(0, 1), (0, 2)]

    asyncio.run(scenario())


def test_a_partition_in_work_stands_where_it_is_committed() -> None:
    """Taken is not done; with nothing in work, all that was taken is, committed or not worth a commit."""

    async def scenario() -> None:
        app, work, tp = App(), Work(), TP("topic", 0)
        lanes = Lanes(app, work)  # type: ignore[arg-type]
        assert lanes.standing(tp, 7) == (7, 0)
        await lanes.put(batch(0, 0))
        await until(lambda: bool(work.begun))
        assert lanes.standing(tp, 7) == (-1, 0)
        work.gate(0, 0).set()
        await until(lambda: lanes.done == {tp: 1})
        await lanes.put(batch(0, 1))
        await until(lambda: len(work.begun) == 2)
        assert lanes.standing(tp, 7) == (1, 1)
        work.gate(0, 1).set()
        await until(lambda: lanes.done == {tp: 2})
        await until(lambda: lanes.standing(tp, 7) == (7, 2))

    asyncio.run(scenario())


def test_who_waits_lives_and_is_not_behind() -> None:
    """An offset yielded again is a sign of life and no new commit; the next step is work again."""
    looks, found = asyncio.Event(), asyncio.Event()

    async def work(batch: Batch) -> AsyncGenerator[int | None, None]:
        for _ in range(3):
            yield 5
        looks.set()
        await found.wait()
        yield 6
        await asyncio.Event().wait()

    async def scenario() -> None:
        app, tp = App(), TP("topic", 0)
        lanes = Lanes(app, work)  # type: ignore[arg-type]
        await lanes.put(batch(0, 5, 2))
        await asyncio.wait_for(looks.wait(), 5)
        assert app.committed == [(0, 5)]
        assert lanes.standing(tp, 7) == (7, 3)
        found.set()
        await until(lambda: lanes.done == {tp: 6})
        assert lanes.standing(tp, 7) == (6, 4)

    asyncio.run(scenario())


@pytest.mark.parametrize("finishes", [True, False])
def test_giving_up_waits_for_the_batch_in_hand_only_so_long(monkeypatch: pytest.MonkeyPatch, finishes: bool) -> None:
    """A batch in hand that finishes is committed, one that does not is left; one that waited never starts."""
    monkeypatch.setattr(lanes_module, "HANDOVER_SECONDS", 5.0 if finishes else 0.01)

    async def scenario() -> None:
        app, work = App(), Work()
        lanes = Lanes(app, work)  # type: ignore[arg-type]
        for first in range(3):
            await lanes.put(batch(0, first))
        await until(lambda: bool(work.begun))
        giving_up = asyncio.create_task(lanes.give_up())
        await asyncio.sleep(0)
        if finishes:
            work.gate(0, 0).set()
        await asyncio.wait_for(giving_up, 4)
        assert app.committed == ([(0, 1)] if finishes else [])
        assert work.begun == [(0, 0)]
        # The partition comes back: it starts anew.
        await lanes.put(batch(0, 7))
        await until(lambda: (0, 7) in work.begun)

    asyncio.run(scenario())


def test_scores_are_read_strictly_and_keep_their_bytes_and_offsets() -> None:
    """Each score comes with its own bytes and offset, whatever is poison between them is named by row."""
    one = Score("a", 5, {"customer": "c"}, {"amount": 1.0}, 0.5, "accept", "m@1", "00ff", 6, 7)
    late = encode(Score("b", NOW + 1, {}, {}, 0.5, "accept", "m@1", "00ff", 6, 7))
    extra = encode(one)[:-1] + b',"new_field":1}'
    values = [extra, b"\xff", None, encode(one).replace(b"0.5", b"NaN"), late, encode(one)]
    records = Records.of([None] * 6, values, np.arange(40, 46), [1] * 6)
    scores, dead = read_scores(records, NOW)
    assert [(scored.score, scored.record, scored.offset) for scored in scores] == [
        (one, extra, 40),
        (one, encode(one), 45),
    ]
    reasons = [(row, poison.reason) for row, poison in dead]
    assert reasons == [(1, "undecodable"), (2, "null"), (3, "undecodable"), (4, "future")]
