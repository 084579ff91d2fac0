"""Negatives that nobody sends: an event without a label one horizon later is assumed to be one.

The scores are read a second time, one horizon behind their newest in stream time, and every event gets a label that is
`assumed`; of those who have a label the join drops it. Kafka's retention is the buffer, an offset the only state.

The order of effects, for each partition:

1. the assumed labels of the events that are due are sent and acknowledged;
2. the offset is committed before which everything was due.

A crash before 2 sends them again, with the same times: the join knows them as repeated.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable

import msgspec
import numpy as np
from faust.types import TP

from schemas.codec import encode
from schemas.events import Label
from schemas.topics import Topic
from streams.metrics import Metrics
from streams.runtime.batches import Batch
from streams.runtime.partitioner import by_partition, partition_of
from streams.runtime.records import Records, Spans
from streams.runtime.sender import Sender

STAGE = "matured"
LABELS_AT_ONCE = 1000
NAP = 0.25  # seconds between two looks at the stream time


class Scored(msgspec.Struct, frozen=True, gc=False):
    """What of a score says when its event was."""

    event_id: str
    event_time: int
    scored_at: int

    @property
    def time(self) -> int:
        """The event's time (ms), or when it was scored: one from the future would hold up those after it."""
        return min(self.event_time, self.scored_at)


_decode = msgspec.json.Decoder(Scored).decode


class MaturedAgent:
    """Sends to the topic `labels` that an event is negative once stream time has come `horizon_ms` past it.

    `waiting` are the partitions whose next event is not due.
    """

    def __init__(self, labels: Topic, horizon_ms: int, sender: Sender, metrics: Metrics) -> None:
        self.waiting: set[TP] = set()
        self._labels, self._horizon = labels, horizon_ms
        self._sender, self._metrics = sender, metrics
        self._now = 0  # of the stream, ms

    def saw(self, newest: Iterable[bytes]) -> None:
        """Let stream time come as far as the newest scores are."""
        self._now = max([self._now, *(scored.time for value in newest if (scored := read_score(value)))])

    async def work(self, batch: Batch) -> AsyncGenerator[int, None]:
        """Label a batch, each event when it is due; yields the offset before which all are labelled, again and again
        while it waits."""
        offsets, labels = assumptions(batch.records, self._horizon)
        done = 0
        try:
            while done < len(labels):
                due = done
                while due < min(len(labels), done + LABELS_AT_ONCE) and labels[due].label_time <= self._now:
                    due += 1
                if due > done:
                    await self._send(labels[done:due])
                    done = due
                else:
                    self.waiting.add(batch.tp)
                    await asyncio.sleep(NAP)
                yield offsets[done] if done < len(labels) else batch.next_offset
                self.waiting.discard(batch.tp)
        finally:
            self.waiting.discard(batch.tp)
        if not labels:
            yield batch.next_offset

    async def _send(self, labels: list[Label]) -> None:
        keys = Spans.of([label.event_id.encode() for label in labels])
        values = Spans.of([encode(label) for label in labels])
        times = np.full(len(labels), int(time.time() * 1000), np.int64)
        places = partition_of(keys, self._labels.partitions)
        for partition, rows in by_partition(places, self._labels.partitions):
            self._sender.send_records(self._labels.name, partition, keys, values, times, rows)
        await self._sender.acked(self._sender.mark())
        self._metrics.events.labels(STAGE).inc(len(labels))


def assumptions(records: Records, horizon_ms: int) -> tuple[list[int], list[Label]]:
    """Return what is assumed of the scores among some records, and their offsets; what is no score says nothing."""
    offsets, labels = list[int](), list[Label]()
    for offset, value in zip(records.offsets.tolist(), records.values(), strict=True):
        if scored := read_score(value):
            offsets.append(offset)
            labels.append(Label(scored.event_id, scored.time + horizon_ms, 0, assumed=True))
    return offsets, labels


def read_score(value: bytes | None) -> Scored | None:
    """Return what is needed of a score, None where it is none: the history puts that aside."""
    try:
        return _decode(value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
