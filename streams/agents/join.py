"""The join at work: labels wait for their events, and leave as examples, label updates and dead letters.

The order of effects, for a run of a partition's labels whose events are all there:

1. examples, label updates and dead letters are sent, the labels stored; all of it is acknowledged;
2. the offset after the run is committed.

A crash before 2 does the run again: the stages drop updates they have seen, labels are stored as they were, and
an example may come twice.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from itertools import takewhile

import numpy as np
from faust.types import TP

from schemas.codec import encode
from schemas.events import Example, Label, Score
from schemas.topics import Topic, Topics
from streams.agents.deadletters import DeadLetters
from streams.agents.joiner import Arrival, Joiner, Messages, read_labels
from streams.metrics import Metrics
from streams.runtime.batches import Batch
from streams.runtime.offsets import GroupOffsets
from streams.runtime.records import Spans, by_partition, partition_of
from streams.runtime.sender import Sender
from streams.settings import Settings
from streams.stores.history import HistoryStore
from streams.usecases import UseCase

STAGE = "join"
LABELS_AT_ONCE = 1000  # what a crash or a handover may bring a second time
FIRST_LOOK_AGAIN, LONGEST_LOOK_AGAIN = 0.02, 1.0  # seconds


class JoinAgent:
    """Joins each batch of the label topic; the first labels of a partition leave first.

    A label whose event is not found waits `label_wait_seconds`, and beyond that until the group behind
    `offsets` has written every score that is there by then: a slow store makes labels late, never unknown. An
    event that this deployment has not scored may be among the `published` ones, from before its time.
    """

    def __init__(
        self,
        usecase: UseCase,
        settings: Settings,
        store: HistoryStore,
        sender: Sender,
        offsets: GroupOffsets,
        dead_letters: DeadLetters,
        metrics: Metrics,
        published: HistoryStore | None = None,
    ) -> None:
        self._topics: Topics = usecase.topics(settings.partitions)
        self._joiner = Joiner(usecase, settings.partitions)
        self._patience = settings.label_wait_seconds
        self._max_ahead_ms = settings.max_ahead_ms
        self._store, self._published = store, published
        self._sender = sender
        self._offsets = offsets
        self._dead_letters = dead_letters
        self._metrics = metrics

    async def work(self, batch: Batch) -> AsyncIterator[int]:
        """Join a batch; yields an offset once everything that labels before it led to is kept."""
        began = time.perf_counter()
        waiting = read_labels(batch.records, int(time.time() * 1000) + self._max_ahead_ms)
        scores: dict[str, Score] = {}
        patience = Patience(self._offsets, self._topics.scores, self._patience)
        pause = FIRST_LOOK_AGAIN
        while waiting:
            over = await patience.over()  # asked before looking: what was written by then will be seen
            run = waiting[:LABELS_AT_ONCE]
            scores |= await self._store.scores(_missing(run, scores))
            if over and self._published:
                scores |= await self._published.scores(_missing(run, scores))
            ready = run if over else _leading(run, scores)
            if ready:
                await self._emit(batch, ready, scores)
                waiting = waiting[len(ready) :]
                yield waiting[0].offset if waiting else batch.next_offset
            if len(ready) < len(run):
                yield waiting[0].offset  # it lives, and waits
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_LOOK_AGAIN)
        self._metrics.batches.labels(STAGE).inc()
        self._metrics.batch_seconds.labels(STAGE).observe(time.perf_counter() - began)

    async def _emit(self, batch: Batch, arrivals: Sequence[Arrival], scores: Mapping[str, Score]) -> None:
        outputs = self._joiner.join(arrivals, scores, batch.partition)
        now = int(time.time() * 1000)
        for topic, messages in zip(self._topics.hops, outputs.hops, strict=True):
            if messages:
                self._send(topic, messages, now)
        if outputs.examples:
            self._send(self._topics.examples, _messages(outputs.examples, self._topics.examples), now)
        await asyncio.gather(
            self._sender.acked(self._sender.mark()),
            self._dead_letters.send(batch, outputs.dead),
            self._store.write_labels(outputs.labels),
        )
        await self._sender.room()
        self._metrics.events.labels(STAGE).inc(len(arrivals))

    def _send(self, topic: Topic, messages: Messages, now: int) -> None:
        times = np.full(len(messages.partitions), now, np.int64)
        for partition, rows in by_partition(messages.partitions, topic.partitions):
            self._sender.send_records(topic.name, partition, messages.keys, messages.values, times, rows)


class Patience:
    """How long the labels of a batch wait: `seconds`, and until all that was scored by then is in the store."""

    def __init__(self, offsets: GroupOffsets, scores: Topic, seconds: float) -> None:
        self._offsets, self._scores = offsets, scores
        self._deadline = time.monotonic() + seconds
        self._ends: dict[TP, int] | None = None

    async def over(self) -> bool:
        """Say whether an event that is not found now is unknown for good."""
        if time.monotonic() < self._deadline:
            return False
        if self._ends is None:
            self._ends = await self._offsets.ends(self._scores.name, self._scores.partitions)
        return await self._offsets.passed(self._ends)


def _missing(arrivals: Iterable[Arrival], scores: Mapping[str, Score]) -> list[str]:
    labels = (one.content for one in arrivals if isinstance(one.content, Label))
    return [label.event_id for label in labels if label.event_id not in scores]


def _leading(arrivals: Sequence[Arrival], scores: Mapping[str, Score]) -> list[Arrival]:
    """Return the arrivals before the first label whose event is missing."""
    return list(takewhile(lambda one: not _missing([one], scores), arrivals))


def _messages(examples: Sequence[Example], topic: Topic) -> Messages:
    keys = Spans.of([one.event_id.encode() for one in examples])
    return Messages(Spans.of([encode(one) for one in examples]), keys, partition_of(keys, topic.partitions))
