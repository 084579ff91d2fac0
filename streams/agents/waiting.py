"""Labels that wait for their events, and for how long.

What leaves may overtake a label that waits, by less than `FARTHEST` offsets, which is what the receivers' windows
bear (`features.seen`). A watermark overtakes none: it promises that no label before it will follow.
"""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Container, Iterable, Sequence
from math import inf
from typing import NamedTuple, Protocol

from faust.types import TP

from schemas.events import Label, Watermark
from schemas.topics import Topic
from streams.agents.joiner import Arrival
from streams.features.seen import FARTHEST
from streams.runtime.batches import Batch

FIRST_LOOK_AGAIN, LONGEST_LOOK_AGAIN = 0.02, 1.0  # seconds

Clock = Callable[[], float]


class Waiting(NamedTuple):
    """An arrival, the batch it came in, and when it was first looked for (seconds, monotonic)."""

    batch: Batch
    arrival: Arrival
    since: float


class Progress(Protocol):
    """How far a consumer group has come; `GroupOffsets` is one."""

    async def ends(self, topic: str, partitions: int) -> dict[TP, int]:
        """Return the offset after the last record of each partition of a topic."""

    async def passed(self, ends: dict[TP, int]) -> bool:
        """Say whether the group has done everything before `ends`."""


class Step(NamedTuple):
    """A part of the way from an event to its score in the store: a topic, and the group that reads it."""

    group: Progress
    topic: Topic


class Patience:
    """Who has waited long enough: for `seconds`, and until all that was in Kafka by then has come the whole way.

    A slow or absent part of the pipeline makes labels late, never unknown. But where a watermark waits behind the
    labels, the stages may wait for that in turn: then only the last step counts.
    """

    def __init__(self, way: Sequence[Step], seconds: float, clock: Clock = time.monotonic) -> None:
        self._way, self._seconds, self._clock = way, seconds, clock
        self._over = -inf
        self._following: float | None = None
        self._left: deque[Step] = deque()
        self._ends: dict[TP, int] | None = None

    async def over(self, first: float, promised: bool = False) -> float:
        """Return up to when one must have begun to wait to wait no longer; `first` is who has waited longest, and
        `promised` whether a watermark waits with them.

        Ask before looking: what has come through by then will be found.
        """
        if self._following is None:
            waited = self._clock() - self._seconds
            if first > waited:
                return self._over
            self._following, self._left, self._ends = waited, deque(self._way), None
        if promised and len(self._left) > 1:
            self._left, self._ends = deque(self._way[-1:]), None
        while self._left:
            group, topic = self._left[0]
            if self._ends is None:  # only now, as the step before has put into this topic what it had
                self._ends = await group.ends(topic.name, topic.partitions)
            if not await group.passed(self._ends):
                return self._over
            self._left.popleft()
            self._ends = None
        self._over, self._following = self._following, None
        return self._over


class Room:
    """Where the arrivals of one partition of the label topic wait, in their order."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self.look_at = inf
        self._pause = FIRST_LOOK_AGAIN
        self._waiting: dict[int, Waiting] = {}
        self._of: defaultdict[str, deque[int]] = defaultdict(deque)  # the offsets of an event's labels

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def waiting(self) -> list[Waiting]:
        """Everything that waits, in order."""
        return list(self._waiting.values())

    @property
    def promised(self) -> bool:
        """Say whether a watermark waits."""
        return any(isinstance(one.arrival.content, Watermark) for one in self._waiting.values())

    def low(self, otherwise: int) -> int:
        """Return the offset before which nothing waits, `otherwise` where nothing does."""
        return next(iter(self._waiting), otherwise)

    def admit(self, coming: deque[Waiting], most: int) -> list[Waiting]:
        """Let in what comes first, at most so many and not too far from what waits; return it."""
        admitted: list[Waiting] = []
        low = self.low(coming[0].arrival.offset) if coming else 0
        while coming and len(admitted) < most and coming[0].arrival.offset < low + FARTHEST:
            one = coming.popleft()
            offset, content = one.arrival.offset, one.arrival.content
            self._waiting[offset] = one
            if isinstance(content, Label):
                self._of[content.event_id].append(offset)
            admitted.append(one)
        return admitted

    def release(self, looked_for: Iterable[Waiting], found: Container[str], over: float) -> list[Waiting]:
        """Let out those of `looked_for` that need not wait, in order: labels whose event is among `found` or that
        have waited since `over` or longer, watermarks with no label before them, and what is neither.

        No label overtakes another of its event.
        """
        leaving: list[Waiting] = []
        for one in looked_for:
            offset, content = one.arrival.offset, one.arrival.content
            if isinstance(content, Label) and not self._may_leave(offset, content, found, one.since <= over):
                continue
            if isinstance(content, Watermark) and self.low(offset) < offset:
                continue
            del self._waiting[offset]
            leaving.append(one)
        return leaving

    def _may_leave(self, offset: int, label: Label, found: Container[str], given_up: bool) -> bool:
        of_event = self._of[label.event_id]
        if of_event[0] < offset or not (given_up or label.event_id in found):
            return False
        of_event.popleft()
        if not of_event:
            del self._of[label.event_id]
        return True

    def plan(self, now: float, looked: bool) -> None:
        """Settle when to look again for what waits: soon at first, then ever less often."""
        if not self._waiting:
            self.look_at, self._pause = inf, FIRST_LOOK_AGAIN
        elif looked or self.look_at == inf:
            self.look_at = now + self._pause
            self._pause = min(2 * self._pause, LONGEST_LOOK_AGAIN)
