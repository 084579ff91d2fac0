"""The join at work on a store in memory: who waits, for how long, and what leaves when."""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from faust.types import TP
from numpy.typing import NDArray

from schemas.codec import encode
from schemas.events import Example, Label, Score
from streams.agents.deadletters import DeadLetters
from streams.agents.join import LABELS_AT_ONCE, JoinAgent
from streams.metrics import Metrics
from streams.runtime.batches import Batch
from streams.runtime.records import Header, Records, Spans, build, parse
from streams.settings import Settings
from streams.stores.history import Scored
from streams.stores.memory_history import MemoryHistory
from streams.usecases import FRAUD

SETTINGS = Settings(partitions=2, label_wait_seconds=0.05)
TOPICS = FRAUD.topics(2)


class Outbox:
    """A Sender that keeps what it is given and acknowledges at once."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, int, bytes]] = []
        self.letters: list[tuple[bytes | None, dict[str, bytes | None]]] = []

    def send_records(
        self,
        topic: str,
        partition: int,
        keys: Spans,
        values: Spans,
        timestamps: NDArray[np.int64],
        rows: NDArray[np.int64],
    ) -> None:
        self.batches += [(topic, partition, bytes(batch)) for batch in build(keys, values, timestamps, rows)]

    async def send_many(
        self,
        topic: str,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        headers: Sequence[tuple[Header, ...]],
    ) -> None:
        assert topic == TOPICS.dlq.name
        self.letters += [(value, dict(mine)) for value, mine in zip(values, headers, strict=True)]

    def mark(self) -> None: ...

    async def acked(self, mark: None) -> None: ...

    async def room(self) -> None: ...

    @property
    def examples(self) -> list[str]:
        values = [
            value
            for topic, _, data in self.batches
            if topic == TOPICS.examples.name
            for value in parse(data, 0)[0].values()
        ]
        return [msgspec.json.decode(value or b"", type=Example).event_id for value in values]


class Written:
    """How far the history group has come, as the test turns it."""

    def __init__(self, done: bool) -> None:
        self.done = done
        self.asked = 0

    async def ends(self, topic: str, partitions: int) -> dict[TP, int]:
        assert (topic, partitions) == (TOPICS.scores.name, 2)
        return {TP(topic, 0): 5}

    async def passed(self, ends: Mapping[TP, int]) -> bool:
        self.asked += 1
        return self.done

    async def committed(self, partitions: Collection[TP]) -> dict[TP, int]:
        raise AssertionError("not asked")


class World:
    """A join agent around a store in memory; `yielded` are the offsets it says are done."""

    def __init__(self, written: bool = True, published: MemoryHistory | None = None) -> None:
        self.store, self.outbox, self.written = MemoryHistory(), Outbox(), Written(written)
        self.metrics = Metrics("test")
        letters = DeadLetters(self.outbox, TOPICS.dlq.name, self.metrics)  # type: ignore[arg-type]
        self.agent = JoinAgent(
            FRAUD,
            SETTINGS,
            self.store,
            self.outbox,  # type: ignore[arg-type]
            self.written,  # type: ignore[arg-type]
            letters,
            self.metrics,
            published,
        )
        self.yielded: list[int] = []

    async def work(self, *event_ids: str) -> None:
        values = [encode(Label(event_id, 9, 1)) for event_id in event_ids]
        n = len(values)
        records = Records.of([None] * n, values, range(100, 100 + n), [1] * n)
        async for offset in self.agent.work(Batch(TOPICS.labels.name, 0, records, 100 + n, 1)):
            if offset not in self.yielded:  # again while it waits, as a sign of life
                self.yielded.append(offset)

    async def score(self, event_id: str, store: MemoryHistory | None = None) -> None:
        score = Score(event_id, 5, {"customer": "c", "terminal": "t"}, {}, 0.5, "accept", "m@1", "00ff", 6, 7)
        await (store or self.store).write_scores([Scored(score, encode(score), 0)])


async def until(truth: Callable[[], bool]) -> None:
    while not truth():  # noqa: ASYNC110  # what is awaited has no event
        await asyncio.sleep(0.001)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 20))


def test_labels_before_a_missing_event_leave_at_once_those_after_it_wait() -> None:
    """Order is kept: what stands before the first missing event goes, the rest follows when it is found."""

    async def scenario() -> None:
        world = World(written=False)
        await world.score("a")
        await world.score("c")
        working = asyncio.create_task(world.work("a", "b", "c"))
        await until(lambda: bool(world.yielded))
        assert world.outbox.examples == ["a"]
        assert world.yielded == [101]
        await world.score("b")
        await working
        assert world.outbox.examples == ["a", "b", "c"]
        assert world.yielded == [101, 103]
        assert await world.store.labels(["a", "b", "c"]) == {i: Label(i, 9, 1) for i in "abc"}

    run(scenario())


def test_an_event_nobody_scored_is_given_up_and_the_rest_goes_on() -> None:
    """After the wait, with all scores written, the label is a dead letter "unknown_event" and no row is kept."""

    async def scenario() -> None:
        world = World()
        await world.score("c")
        await world.work("nobody", "c")
        assert world.outbox.examples == ["c"]
        ((value, headers),) = world.outbox.letters
        assert msgspec.json.decode(value or b"", type=Label).event_id == "nobody"
        assert headers["headrace-error"] == b"unknown_event"
        assert headers["headrace-source"] == b"fraud.labels/0/100"
        assert world.yielded[-1] == 102
        assert list(await world.store.labels(["nobody", "c"])) == ["c"]

    run(scenario())


@pytest.mark.parametrize("found", [True, False])
def test_while_scores_are_still_being_written_no_label_is_unknown(found: bool) -> None:
    """Long after its time a label still waits for a history that lags; what the last scores brought decides."""

    async def scenario() -> None:
        world = World(written=False)
        working = asyncio.create_task(world.work("b"))
        await until(lambda: world.written.asked >= 4)
        assert not working.done()
        assert world.outbox.letters == []
        if found:
            await world.score("b")
        world.written.done = True
        await working
        assert world.outbox.examples == (["b"] if found else [])
        assert len(world.outbox.letters) == (0 if found else 1)

    run(scenario())


def test_an_event_from_before_this_deployment_is_among_the_published() -> None:
    """Who has not scored an event itself takes what was published of it, but not before that is certain."""

    async def scenario() -> None:
        published = MemoryHistory()
        world = World(written=False, published=published)
        await world.score("old", published)
        working = asyncio.create_task(world.work("old"))
        await until(lambda: world.written.asked >= 2)
        assert world.outbox.batches == []
        world.written.done = True
        await working
        assert world.outbox.examples == ["old"]
        assert world.outbox.letters == []
        assert list(await world.store.labels(["old"])) == ["old"]

    run(scenario())


def test_a_large_batch_leaves_in_runs() -> None:
    """Thousands of labels in one batch are joined and committed run by run, in order."""

    async def scenario() -> None:
        world = World()
        ids = [f"e{i}" for i in range(2 * LABELS_AT_ONCE + 1)]
        for event_id in ids:
            await world.score(event_id)
        await world.work(*ids)
        assert world.outbox.examples == ids
        assert world.yielded == [100 + LABELS_AT_ONCE, 100 + 2 * LABELS_AT_ONCE, 100 + len(ids)]

    run(scenario())
