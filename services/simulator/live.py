"""Payments sent as the clock reaches their time (open loop: a slow broker delays them, but makes none fewer)."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

from schemas.codec import encode
from schemas.events import Label, Transaction
from schemas.topics import Topics
from services.simulator.fraud import Simulation
from streams.metrics import Metrics
from streams.runtime.producer import Producer

BLOCK_MS = 1_000
TICK_SECONDS = 0.002


@dataclass
class Live:
    """A simulation on the wall clock: each payment sent at its time, its label `label_delay` ms later.

    With `frauds_only` nobody says of a legitimate payment that it was one.
    """

    producer: Producer
    topics: Topics
    simulation: Simulation
    label_delay: int
    metrics: Metrics
    stop: threading.Event
    frauds_only: bool = False
    sent_events: int = field(default=0, init=False)
    sent_labels: int = field(default=0, init=False)
    late_ms: int = field(default=0, init=False)
    """How late a payment was sent at most: large where the rate is more than this process can send."""

    def run(self, seconds: float) -> None:
        """Send for `seconds` or until `stop`; labels that are not due by then are never sent."""
        begin = _now()
        payments = self._payments(begin)
        labels: deque[Label] = deque()
        payment, label = next(payments)
        while not self.stop.is_set() and (now := _now()) < begin + seconds * 1000:
            while payment.event_time <= now:
                self._send_event(payment, now)
                if label or not self.frauds_only:
                    labels.append(Label(payment.event_id, payment.event_time + self.label_delay, label))
                payment, label = next(payments)
            while labels and labels[0].label_time <= now:
                self._send_label(labels.popleft())
            self.stop.wait(TICK_SECONDS)
        self.producer.flush()

    def _payments(self, begin: int) -> Iterator[tuple[Transaction, Literal[0, 1]]]:
        # Ids of two runs on the same topics must differ.
        prefix = f"{begin:x}-"
        for start in count(begin, BLOCK_MS):
            block = self.simulation.block(start, start + BLOCK_MS)
            for payment, fraud in zip(block.structs(prefix), block.labels.tolist(), strict=True):
                yield payment, 1 if fraud else 0

    def _send_event(self, payment: Transaction, now: int) -> None:
        self.producer.send(self.topics.events.name, encode(payment), payment.customer_id.encode())
        self.sent_events += 1
        self.late_ms = max(self.late_ms, now - payment.event_time)
        self.metrics.events.labels("simulator").inc()

    def _send_label(self, label: Label) -> None:
        self.producer.send(self.topics.labels.name, encode(label), label.event_id.encode())
        self.sent_labels += 1


def _now() -> int:
    return time.time_ns() // 1_000_000
