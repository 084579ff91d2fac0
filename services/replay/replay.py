"""Sending the records of a replay at its speed, with the promises that keep several partitions in step."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from schemas.codec import encode
from schemas.events import WATERMARK_HEADER, Label, Watermark
from schemas.topics import Topic, Topics
from services.replay.schedule import merged
from streams.runtime.producer import Producer
from streams.stores.files import Events

MARK_RECORDS = 256
MARK_SECONDS = 0.05
CHUNK = 65_536
LONGEST_WAIT = 3600.0  # seconds; a lock takes no wait of centuries


@dataclass
class Replay:
    """One replay of `events`, the first `labelled` of them followed by their labels after `delay` ms.

    `speed` is stream seconds in a second, infinite for as fast as it goes; `progress` is called for each event.
    """

    producer: Producer
    topics: Topics
    events: Events
    delay: int
    labelled: int
    speed: float
    stop: threading.Event
    progress: Callable[[], object]
    sent_events: int = field(default=0, init=False)
    sent_labels: int = field(default=0, init=False)

    def run(self) -> None:
        """Send everything, or what there is time for until `stop`.

        1. Promise every partition that nothing before the first record will come, so that no stage runs ahead
           of a partition that it has not heard of;
        2. send the records in stream-time order, renewing the promise as time goes on, and before a label whose
           event it has not passed: the join lets no later promise by until the label's event is scored;
        3. take the promise back and wait for Kafka's acknowledgement: nobody waits for us any more, even if
           the replay was stopped. Only a killed one leaves the stages waiting, until they give it up.
        """
        times, is_label = merged(self.events.times, self.delay, self.labelled)
        self._mark(int(times[0]))
        self._send_all(times, is_label)
        self._mark(None)
        self.producer.flush()

    def _send_all(self, times: np.ndarray, is_label: np.ndarray) -> None:
        events, labels = self._encoded_events(), self._encoded_labels()
        begin, first = time.monotonic(), int(times[0])
        marked, since_mark, marked_at = first, 0, begin
        for moment, label in zip(times.tolist(), is_label.tolist(), strict=True):
            due = begin + (moment - first) / 1000 / self.speed
            now = time.monotonic()
            unscored = label and moment - self.delay >= marked
            if unscored or since_mark >= MARK_RECORDS or (since_mark and max(now, due) - marked_at > MARK_SECONDS):
                self._mark(moment)
                marked, since_mark, marked_at = moment, 0, now
            while not self.stop.is_set() and due > now:
                self.stop.wait(min(due - now, LONGEST_WAIT))
                now = time.monotonic()
            if self.stop.is_set():
                return
            if label:
                self._send(self.topics.labels, *next(labels))
                self.sent_labels += 1
            else:
                self._send(self.topics.events, *next(events))
                self.sent_events += 1
                self.progress()
            since_mark += 1

    def _send(self, topic: Topic, key: bytes, value: bytes) -> None:
        self.producer.send(topic.name, value, key)

    def _encoded_events(self) -> Iterator[tuple[bytes, bytes]]:
        key = self.events.usecase.features.stages[0].key
        for part in self.events.slices(CHUNK):
            yield from zip(part.keys(key), map(encode, part.structs()), strict=True)

    def _encoded_labels(self) -> Iterator[tuple[bytes, bytes]]:
        for part in self.events.head(self.labelled).slices(CHUNK):
            assert part.labels is not None
            due = (part.times + self.delay).tolist()
            for name, moment, label in zip(part.event_ids, due, part.labels.tolist(), strict=True):
                yield name.encode(), encode(Label(name, moment, label))

    def _mark(self, moment: int | None) -> None:
        value = encode(Watermark(moment))
        for topic in (self.topics.events, self.topics.labels):
            for partition in range(topic.partitions):
                self.producer.send(topic.name, value, None, [(WATERMARK_HEADER, b"1")], partition)
