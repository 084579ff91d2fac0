"""The join at work: labels wait for their events, and leave as examples, label updates and dead letters.

The order of effects, for a run of a partition's labels whose events are there; others wait and are overtaken:

0. what is kept of the labels' events is read, and decides what each label changes (`settling`);
1. examples, label updates and dead letters are sent and acknowledged;
2. the labels that change something are kept, each with its place;
3. the offset is committed before which no label waits.

A crash before 3 reads again what came after that offset. A label whose event has a row of its place or a later one was
done with and is dropped; any other finds what it found before, so it leads to the same again, which stages and learner
know by its place.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from itertools import groupby
from math import inf
from operator import attrgetter

import numpy as np

from schemas.codec import encode
from schemas.events import Example, Label, Score
from schemas.topics import Topic, Topics
from streams.agents.deadletters import DeadLetters
from streams.agents.joiner import Joiner, Messages, Outputs, read_labels
from streams.agents.waiting import Patience, Room, Step, Waiting
from streams.metrics import Metrics
from streams.runtime.batches import Batch
from streams.runtime.partitioner import by_partition, partition_of
from streams.runtime.records import Spans
from streams.runtime.sender import Sender
from streams.settings import Settings
from streams.stores.history import HistoryStore
from streams.usecases import UseCase

STAGE = "join"
LABELS_AT_ONCE = 1000  # what a crash or a handover may bring a second time
NAP = 0.05  # seconds, after which a batch that has come meanwhile is taken in
NEVER = -inf


class JoinAgent:
    """Joins each batch of the label topic; a label whose event is not found waits, and others overtake it.

    It waits `label_wait_seconds`, and beyond that until all events that were there by then have come the whole `way`
    into the store: a slow pipeline makes labels late, never unknown. An event that this deployment has not scored may
    be among the `published` ones, from before its time.
    """

    def __init__(
        self,
        usecase: UseCase,
        settings: Settings,
        store: HistoryStore,
        sender: Sender,
        way: Sequence[Step],
        dead_letters: DeadLetters,
        metrics: Metrics,
        published: HistoryStore | None = None,
    ) -> None:
        self._topics: Topics = usecase.topics(settings.partitions)
        self._joiner = Joiner(usecase, settings.partitions)
        self._way, self._wait = way, settings.label_wait_seconds
        self._rooms: dict[int, Room] = {}
        self._max_ahead_ms = settings.max_ahead_ms
        self._store, self._published = store, published
        self._sender = sender
        self._dead_letters = dead_letters
        self._metrics = metrics

    async def work(self, batch: Batch) -> AsyncGenerator[int | None, None]:
        """Join a batch; yields an offset once everything that labels before it led to is kept, and None when
        what is left waits: then the next batch may be given to work, and this one left."""
        began = time.perf_counter()
        room = self._rooms.setdefault(batch.partition, Room(Patience(self._way, self._wait)))
        arrivals = read_labels(batch.records, int(time.time() * 1000) + self._max_ahead_ms)
        now = time.monotonic()
        coming = deque(Waiting(batch, one, now) for one in arrivals)
        while coming or room:
            entering = room.admit(coming, LABELS_AT_ONCE)
            if entering:
                await self._settle(room, entering, NEVER)
                if not coming:
                    self._metrics.batches.labels(STAGE).inc()
                    self._metrics.batch_seconds.labels(STAGE).observe(time.perf_counter() - began)
                yield self._low(room, coming, batch)
            if time.monotonic() >= room.look_at:
                waiting = room.waiting
                over = await room.patience.over(waiting[0].since, room.promised)
                for first in range(0, len(waiting), LABELS_AT_ONCE):
                    await self._settle(room, waiting[first : first + LABELS_AT_ONCE], over)
                    yield self._low(room, coming, batch)
                room.plan(time.monotonic(), looked=True)
            elif not entering:
                yield self._low(room, coming, batch) if coming else None
                await asyncio.sleep(min(NAP, max(0.0, room.look_at - time.monotonic())))

    def forget(self) -> None:
        """Forget what waits: others have the partitions now, or read them again."""
        self._rooms.clear()
        self._metrics.waiting_labels.clear()

    async def _settle(self, room: Room, some: Sequence[Waiting], over: float) -> None:
        """Look for the events of some labels in the room, and emit what need not wait any longer."""
        if over == NEVER:  # of those that just came nearly all will leave
            ids = _event_ids(some)
            scores, kept = await asyncio.gather(self._store.scores(ids), self._store.labels(ids))
        else:
            scores = await self._scores(some, over)
            kept = await self._store.labels(list(scores))
        leaving = room.release(some, scores, over)
        for batch, run in groupby(leaving, key=attrgetter("batch")):
            outputs = self._joiner.join([one.arrival for one in run], scores, kept, batch.partition)
            await self._emit(batch, outputs)
            kept |= outputs.kept
        self._metrics.events.labels(STAGE).inc(len(leaving))
        room.plan(time.monotonic(), looked=False)
        self._metrics.waiting_labels.labels(str(some[0].batch.partition)).set(len(room))

    async def _scores(self, some: Sequence[Waiting], over: float) -> dict[str, Score]:
        scores = await self._store.scores(_event_ids(some))
        if not self._published:
            return scores
        given_up = _event_ids(one for one in some if one.since <= over)
        return await self._published.scores([id_ for id_ in given_up if id_ not in scores]) | scores

    def _low(self, room: Room, coming: Sequence[Waiting], batch: Batch) -> int:
        return room.low(coming[0].arrival.offset if coming else batch.next_offset)

    async def _emit(self, batch: Batch, outputs: Outputs) -> None:
        now = int(time.time() * 1000)
        for topic, messages in zip(self._topics.hops, outputs.hops, strict=True):
            if messages:
                self._send(topic, messages, now)
        if outputs.examples:
            self._send(self._topics.examples, _messages(outputs.examples, self._topics.examples), now)
        await asyncio.gather(self._sender.acked(self._sender.mark()), self._dead_letters.send(batch, outputs.dead))
        await self._store.write_labels(list(outputs.kept.values()))
        await self._sender.room()
        for outcome, count in outputs.outcomes.items():
            self._metrics.labels.labels(outcome).inc(count)

    def _send(self, topic: Topic, messages: Messages, now: int) -> None:
        times = np.full(len(messages.partitions), now, np.int64)
        for partition, rows in by_partition(messages.partitions, topic.partitions):
            self._sender.send_records(topic.name, partition, messages.keys, messages.values, times, rows)


def _event_ids(waiting: Iterable[Waiting]) -> list[str]:
    contents = (one.arrival.content for one in waiting)
    return [content.event_id for content in contents if isinstance(content, Label)]


def _messages(examples: Sequence[Example], topic: Topic) -> Messages:
    keys = Spans.of([one.event_id.encode() for one in examples])
    return Messages(Spans.of([encode(one) for one in examples]), keys, partition_of(keys, topic.partitions))
