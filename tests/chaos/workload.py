"""The campaign's workload: a pure function of its seed, so that every process and the oracle know the same one.

Live card payments, `rate` a second, with what a real producer does to them: repeats (a retry whose answer was
lost), late and far too late events, labels seconds after, repeated or taken back, and poison of every kind on
every topic. Poison carries `POISON_HEADER` with the reason it must be buried for; what carries none is sound.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

POISON_HEADER = "chaos-poison"
REPEATED, POISONED, LABELLED = 0.01, 0.001, 0.02  # shares of the events
FRAUD, DOUBTED = 0.3, 0.1  # shares of the labels
DISORDERED, LATE, FORGOTTEN = 0.03, 0.009, 0.001
DISORDER_MS, LATE_MS, FORGOTTEN_MS = 30_000, 50 * 60_000, 40 * 86_400_000
REPEAT_SECONDS, LABEL_SECONDS = (0.01, 20.0), (1.0, 8.0)
STRAY = 12  # records of garbage on each internal topic
DAY_MS = 86_400_000

EVENT_POISON = ("null", "undecodable", "invalid", "mistyped", "too_large", "future", "wrong_key", "watermark")
LABEL_POISON = ("null", "undecodable", "invalid", "future", "unknown_event")
NO_WATERMARK = b"no watermark"


class Kind(IntEnum):
    """What one send is; `index` counts within its kind, of a repeat it is the event's; second labels come last."""

    EVENT, REPEAT, LABEL, POISON_EVENT, POISON_LABEL, POISON_HOP, POISON_SCORE, POISON_EXAMPLE = range(8)


@dataclass(frozen=True)
class Workload:
    """`rate` events a second for `seconds`, the first at `begin_ms` (epoch ms)."""

    seed: int
    rate: float
    seconds: float
    begin_ms: int
    customers: int = 20_000
    terminals: int = 10_000

    @property
    def events(self) -> int:
        """How many distinct sound events there are."""
        return round(self.rate * self.seconds)

    @cached_property
    def customer(self) -> NDArray[np.int64]:
        """The customer of each event, some more active than others."""
        rng = self._random(1)
        activity = rng.gamma(2.0, 1.0, self.customers)
        chosen: NDArray[np.int64] = rng.choice(self.customers, self.events, p=activity / activity.sum())
        return chosen

    @cached_property
    def terminal(self) -> NDArray[np.int64]:
        """The terminal of each event."""
        return self._random(2).integers(0, self.terminals, self.events)

    @cached_property
    def amount(self) -> NDArray[np.float64]:
        """The amount of each event; most need all 64 bits of a float."""
        drawn: NDArray[np.float64] = self._random(3).lognormal(3.5, 1.0, self.events).round(2)
        return drawn

    @cached_property
    def time(self) -> NDArray[np.int64]:
        """The event time of each event (ms): when it is sent, or earlier."""
        rng = self._random(4)
        lot, share = rng.random(self.events), rng.random(self.events)
        edges = np.cumsum([FORGOTTEN, LATE, DISORDERED])
        ago = np.select([lot < edge for edge in edges], [FORGOTTEN_MS, share * LATE_MS, share * DISORDER_MS], 0)
        times: NDArray[np.int64] = (self.sent_at - ago).astype(np.int64)
        return times

    @cached_property
    def sent_at(self) -> NDArray[np.float64]:
        """When each event is due (epoch ms)."""
        due: NDArray[np.float64] = self.begin_ms + np.arange(self.events, dtype=np.float64) * 1000.0 / self.rate
        return due

    @cached_property
    def labelled(self) -> NDArray[np.int64]:
        """The events that get a label, in their order."""
        return np.flatnonzero(self._random(5).random(self.events) < LABELLED)

    @cached_property
    def doubted(self) -> NDArray[np.int64]:
        """Of which labels there is a second one: in turn the same again, and the opposite."""
        return np.flatnonzero(self._random(9).random(self.labelled.size) < DOUBTED)

    @cached_property
    def sends(self) -> tuple[NDArray[np.float64], NDArray[np.int8], NDArray[np.int64]]:
        """When each record is due (seconds after the beginning, ascending), its kind, and its index."""
        rng = self._random(6)
        due = np.arange(self.events) / self.rate
        repeats = np.flatnonzero(rng.random(self.events) < REPEATED)
        parts = [(Kind.EVENT, due, np.arange(self.events))]
        again = due[repeats] + rng.uniform(*REPEAT_SECONDS, repeats.size)
        parts.append((Kind.REPEAT, again[again < self.seconds], repeats[again < self.seconds]))
        marked = due[self.labelled] + rng.uniform(*LABEL_SECONDS, self.labelled.size)
        parts.append((Kind.LABEL, marked, np.arange(self.labelled.size)))
        doubts = marked[self.doubted] + rng.uniform(*REPEAT_SECONDS, self.doubted.size)
        parts.append((Kind.LABEL, doubts, self.labelled.size + np.arange(self.doubted.size)))
        counts = {
            Kind.POISON_EVENT: max(len(EVENT_POISON), round(POISONED * self.events)),
            Kind.POISON_LABEL: max(len(LABEL_POISON), round(POISONED * self.labelled.size)),
            **dict.fromkeys((Kind.POISON_HOP, Kind.POISON_SCORE, Kind.POISON_EXAMPLE), STRAY),
        }
        parts += [(kind, rng.uniform(0, self.seconds, n), np.arange(n)) for kind, n in counts.items()]
        times = np.concatenate([time for _, time, _ in parts])
        kinds = np.concatenate([np.full(index.size, kind, np.int8) for kind, _, index in parts])
        index = np.concatenate([index for *_, index in parts])
        order = np.argsort(times, kind="stable")
        return times[order], kinds[order], index[order]

    def event_values(self, index: NDArray[np.int64]) -> list[bytes]:
        """Return the JSON of events."""
        columns = (self.time, self.customer, self.terminal, self.amount)
        rows = zip(index.tolist(), *(column[index].tolist() for column in columns), strict=True)
        return [
            b'{"event_id":"%s","event_time":%d,"customer_id":"c%05d","terminal_id":"t%05d","amount":%.2f}'
            % (event_id(i), time, customer, terminal, amount)
            for i, time, customer, terminal, amount in rows
        ]

    def label(self, index: int) -> tuple[bytes, bytes]:
        """Return key and JSON of a label."""
        second = index - self.labelled.size
        event = int(self.labelled[index if second < 0 else self.doubted[second]])
        fraud = int(self._random(7, event).random() < FRAUD)
        known = self.begin_ms + int(event * 1000 / self.rate) + 1000
        if second >= 0 and second % 2:
            fraud, known = 1 - fraud, known + 1
        return event_id(event), b'{"event_id":"%s","label_time":%d,"label":%d}' % (event_id(event), known, fraud)

    def poison_event(self, index: int) -> tuple[str, bytes, bytes | None]:
        """Return the reason, the key and the value of a poisoned event; `watermark` is a header's, not a value's."""
        what = EVENT_POISON[index % len(EVENT_POISON)]
        number = int(self._random(8, index).integers(self.events))
        (sound,) = self.event_values(np.array([number]))
        key = b"c%05d" % self.customer[number]
        later = b'"event_time":%d,"was":' % (self.begin_ms + 30 * DAY_MS)
        variants: dict[str, tuple[str, bytes, bytes | None]] = {
            "null": ("null", key, None),
            "undecodable": ("undecodable", key, sound[: len(sound) // 2] + b"\xff"),
            "invalid": ("invalid", key, b'{"event_id":"x%08d"}' % index),
            "mistyped": ("invalid", key, sound.replace(b'"amount":', b'"amount":"a lot","was":')),
            "too_large": ("too_large", key, sound + b" " * 66_000),
            "future": ("future", key, sound.replace(b'"event_time":', later)),
            "wrong_key": ("wrong_key", b"nobody", sound),
            "watermark": ("invalid", key, NO_WATERMARK),
        }
        return variants[what]

    def poison_label(self, index: int) -> tuple[str, bytes, bytes | None]:
        """Return the reason, the key and the value of a poisoned label."""
        what = LABEL_POISON[index % len(LABEL_POISON)]
        key = b"x%08d" % index
        sound = b'{"event_id":"%s","label_time":%d,"label":1}' % (key, self.begin_ms)
        variants: dict[str, bytes | None] = {
            "null": None,
            "undecodable": sound[:-9],
            "invalid": sound.replace(b'"label":1', b'"label":2'),
            "future": sound.replace(b'_time":', b'_time":9'),
            "unknown_event": sound,
        }
        return what, key, variants[what]

    def _random(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *stream])


def event_id(number: int) -> bytes:
    """Return the id of an event."""
    return b"e%08d" % number


def number_of(event_id_: str | bytes) -> int:
    """Return the number of the event with this id, -1 where it is none of ours.

    >>> number_of("e00000012"), number_of(b"x1")
    (12, -1)
    """
    text = event_id_.decode() if isinstance(event_id_, bytes) else event_id_
    return int(text[1:]) if text[:1] == "e" and text[1:].isdigit() else -1


def runs(kinds: NDArray[np.int8], start: int, end: int) -> Iterator[tuple[Kind, slice]]:
    """Cut the sends from `start` to before `end` into runs: events and repeats together, the others one by one."""
    bulk = kinds[start:end] <= Kind.REPEAT
    at = start
    for stop in [*(start + np.flatnonzero(~bulk)).tolist(), end]:
        if stop > at:
            yield Kind.EVENT, slice(at, stop)
        if stop < end:
            yield Kind(int(kinds[stop])), slice(stop, stop + 1)
        at = stop + 1
