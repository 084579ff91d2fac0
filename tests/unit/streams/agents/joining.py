"""A join on a store in memory, and what it sends."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
import numpy as np
from faust.types import TP
from numpy.typing import NDArray

from schemas.codec import encode
from schemas.events import WATERMARK_HEADER, Example, Label, Score, Watermark
from streams.agents.deadletters import DeadLetters
from streams.agents.join import JoinAgent
from streams.agents.waiting import Step
from streams.metrics import Metrics
from streams.runtime.batches import Batch
from streams.runtime.hop import HopFormat
from streams.runtime.partitioner import partition_of
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
    def learnt(self) -> list[Example]:
        values = [
            value
            for topic, _, data in self.batches
            if topic == TOPICS.examples.name
            for value in parse(data, 0)[0].values()
        ]
        return [msgspec.json.decode(value or b"", type=Example) for value in values]

    @property
    def examples(self) -> list[str]:
        return [example.event_id for example in self.learnt]

    @property
    def hops(self) -> list[tuple[int, int]]:
        """Kind and source offset of what the terminal's partition is told, in order."""
        found = []
        ours = int(partition_of(Spans.of([b"t"]), 2)[0])
        for topic, partition, data in self.batches:
            if topic == TOPICS.hops[0].name and partition == ours:
                rows, _ = HopFormat(FRAUD.features, 1).decode(parse(data, 0)[0])
                found += list(zip(rows.kinds.tolist(), rows.source_offsets.tolist(), strict=True))
        return found


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


class World:
    """A join agent around a store in memory; `yielded` are the offsets it says are done, None where it waits."""

    def __init__(
        self,
        written: bool = True,
        published: MemoryHistory | None = None,
        store: MemoryHistory | None = None,
        outbox: Outbox | None = None,
    ) -> None:
        self.store, self.outbox, self.written = store or MemoryHistory(), outbox or Outbox(), Written(written)
        self.metrics = Metrics("test")
        letters = DeadLetters(self.outbox, TOPICS.dlq.name, self.metrics)  # type: ignore[arg-type]
        self.agent = JoinAgent(
            FRAUD,
            SETTINGS,
            self.store,
            self.outbox,  # type: ignore[arg-type]
            [Step(self.written, TOPICS.scores)],
            letters,
            self.metrics,
            published,
        )
        self.yielded: list[int] = []

    async def work(self, *labels: str | Label, first: int = 100, until_it_waits: bool = False) -> None:
        """Join a batch of labels, or positive ones of some events, at offsets from `first` on; "|" is a watermark."""
        n = len(labels)
        contents = [Label(one, 9, 1) if isinstance(one, str) else one for one in labels]
        values = [
            encode(Watermark(8) if one == "|" else content) for one, content in zip(labels, contents, strict=True)
        ]
        headers = [[(WATERMARK_HEADER, b"1")] if one == "|" else [] for one in labels]
        records = Records.of([None] * n, values, range(first, first + n), [1] * n, headers)
        async with aclosing(self.agent.work(Batch(TOPICS.labels.name, 0, records, first + n, 1))) as steps:
            async for offset in steps:
                if offset is None and until_it_waits:
                    break
                if offset is not None and self.yielded[-1:] != [offset]:  # again while it waits, as a sign of life
                    self.yielded.append(offset)

    @property
    def waiting(self) -> float | None:
        return self.metrics.registry.get_sample_value("headrace_waiting_labels", {"partition": "0"})

    async def score(self, event_id: str, store: MemoryHistory | None = None) -> None:
        score = Score(event_id, 5, {"customer": "c", "terminal": "t"}, {}, 0.5, "accept", "m@1", "00ff", 6, 7)
        await (store or self.store).write_scores([Scored(score, encode(score), 0)])


async def until(truth: Callable[[], bool]) -> None:
    while not truth():  # noqa: ASYNC110  # what is awaited has no event
        await asyncio.sleep(0.001)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 20))
