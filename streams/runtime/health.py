"""Whether a process moves (liveness), and whether it does its share of the work (readiness).

A process that waits for a store is alive and not ready: another in its place would wait as well. One that has
work, misses no store and yet does not move has stalled: it is not alive, and ends so that it is replaced
(`watchdog`). Pure: time is seconds *awake*, which the watchdog adds while it runs. So a process that was suspended
has not stalled, and a test turns the clock by hand.
"""

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import inf
from threading import RLock
from typing import NamedTuple

from faust.types import TP

from streams.metrics import Answer, Metrics

log = logging.getLogger(__name__)

RETRIED_SECONDS = 10.0
"""For so long a failed attempt says that its store is away; attempts are at most half of it apart."""

TELL_SECONDS = 10.0  # between two lines about a store that is away
CAUGHT_UP_SECONDS = 10.0
"""A partition is caught up while it is less than this behind what comes in, whatever the rate."""


class Standing(NamedTuple):
    """How far a partition is done: the next offset, and the signs of life beside it (a label's next look)."""

    offset: int
    beats: int = 0


class Log(NamedTuple):
    """The offsets that Kafka has of a partition: from `begin`, before `end`."""

    begin: int
    end: int


@dataclass(slots=True)
class _Partition:
    """`goal` is an end that was there at `goal_at`; when it is reached, the end of that moment is the next one."""

    standing: Standing
    moved_at: float
    end: int
    goal: int
    goal_at: float
    caught_up: bool = False

    def see(self, standing: Standing, end: int, now: float) -> None:
        if standing != self.standing or standing.offset >= end:
            self.standing, self.moved_at = standing, now
        self.end = end
        if standing.offset >= self.goal:
            self.goal, self.goal_at, self.caught_up = end, now, True

    def behind(self, now: float) -> bool:
        return not self.caught_up or (self.standing.offset < self.goal and now - self.goal_at > CAUGHT_UP_SECONDS)


@dataclass(slots=True)
class _Task:
    what: str
    stores: tuple[str, ...]
    moved_at: float


class Health:
    """The health of one process that needs `stores`; called from its event loop, its watchdog and its endpoint.

    Nothing counts as stalled while one of `stores` is away, nor before the event loop first beats.
    """

    def __init__(self, stores: Collection[str], metrics: Metrics, stall_seconds: float) -> None:
        self._metrics, self._stall_seconds = metrics, stall_seconds
        self._lock = RLock()
        self._now = 0.0
        self._beat_at: float | None = None
        self._trouble_at = 0.0
        self._silent: set[str] = set()
        self._answered_at: dict[str, float] = {}
        self._retried_at: dict[str, float] = {}
        self._told_at: dict[str, float] = {}
        self._tasks: dict[object, _Task] = {}
        self._partitions: dict[TP, _Partition] = {}
        self._stores = tuple(stores)
        for store in stores:
            metrics.store_up.labels(store).set_function(partial(self._up, store))
        metrics.ready.set_function(lambda: float(self.readyz().yes))
        metrics.stalled_seconds.set_function(self.longest_wait)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        with self._lock:
            self._now += seconds
            if any(self.away(store) for store in self._stores):
                self._trouble_at = self._now
            for task in self._tasks.values():
                if any(self.away(store) for store in task.stores):
                    task.moved_at = self._now

    def beat(self) -> None:
        """Say that the event loop runs."""
        with self._lock:
            self._beat_at = self._now

    @contextmanager
    def working(self, what: str, *stores: str) -> Iterator[None]:
        """Say that the process is at something that is to end soon; it may need `stores` besides the process's."""
        token = object()
        with self._lock:
            self._tasks[token] = _Task(what, stores, self._now)
        try:
            yield
        finally:
            with self._lock:
                del self._tasks[token]

    def moved(self) -> None:
        """Say that what the process is at has come a step further, where it takes long."""
        with self._lock:
            for task in self._tasks.values():
                task.moved_at = self._now

    def retried(self, store: str, error: Exception) -> None:
        """Note an attempt that failed and will be repeated."""
        self._metrics.store_retries.labels(store).inc()
        with self._lock:
            self._retried_at[store] = self._now
        self.tell(store, error)

    def tell(self, store: str, error: BaseException) -> None:
        """Say why a store is away, now and then."""
        with self._lock:
            told_at = self._told_at.get(store)
            if told_at is not None and self._now - told_at < TELL_SECONDS:
                return
            self._told_at[store] = self._now
        log.warning("%s is away, trying again: %s", store, (str(error).splitlines() or [repr(error)])[0])

    def answered(self, store: str, promptly: bool) -> None:
        """Note whether a store answers when it is asked."""
        with self._lock:
            if promptly:
                self._silent.discard(store)
                self._answered_at[store] = self._now
            else:
                self._silent.add(store)

    def away(self, store: str) -> bool:
        """Say whether a store does not answer, or has just failed to do what it was asked to."""
        with self._lock:
            retried_at = self._retried_at.get(store)
            return store in self._silent or (retried_at is not None and self._now - retried_at < RETRIED_SECONDS)

    def saw(self, standings: Mapping[TP, Standing], logs: Mapping[TP, Log]) -> None:
        """Note how far each partition in hand is, and what Kafka has of it."""
        with self._lock:
            now, before, self._partitions = self._now, self._partitions, {}
            for tp, standing in standings.items():
                begin, end = logs[tp]
                inside = standing._replace(offset=max(standing.offset, begin))
                partition = before.get(tp) or _Partition(inside, now, end, end, now)
                partition.see(inside, end, now)
                self._partitions[tp] = partition

    def longest_wait(self) -> float:
        """Return for how long something has waited to move on although no store is away, in seconds."""
        with self._lock:
            return max((0.0, *(seconds for _, seconds in self._waits())))

    def stalled(self) -> str | None:
        """Say what has not moved, once something has not for too long; None until then.

        What waits for half of that time is named as well: who holds a lock may be seen after who waits for it.
        """
        with self._lock:
            waits = list(self._waits())
        if all(seconds <= self._stall_seconds for _, seconds in waits):
            return None
        return ", ".join(f"{what} for {seconds:.0f} s" for what, seconds in waits if seconds > self._stall_seconds / 2)

    def livez(self) -> Answer:
        """Answer whether the process moves, or has nothing to do."""
        stalled = self.stalled()
        return Answer(stalled is None, {"alive": stalled is None, "reasons": [stalled] if stalled else []})

    def readyz(self) -> Answer:
        """Answer whether it has partitions and has caught up with them, and if not, why."""
        with self._lock:
            reasons = list(self._reasons())
            behind = {f"{tp.topic}/{tp.partition}": one.end - one.standing.offset for tp, one in self._shown()}
            stores = {store: not self.away(store) for store in self._stores}
        return Answer(
            not reasons, {"ready": not reasons, "reasons": reasons, "stores": stores, "records_behind": behind}
        )

    def _up(self, store: str) -> float:
        return float(not self.away(store))

    def _reasons(self) -> Iterator[str]:
        if self._beat_at is None:
            yield "starting"
            return
        if stalled := self.stalled():
            yield stalled
        yield from (f"{store} is away" for store in self._stores if self.away(store))
        if not self._partitions:
            yield ", ".join(["no partitions are assigned", *(task.what for task in self._tasks.values())])
        for tp, one in self._shown():
            if one.behind(self._now):
                yield f"{tp.topic}/{tp.partition} is {one.end - one.standing.offset} records behind"

    def _shown(self) -> list[tuple[TP, _Partition]]:
        return sorted(self._partitions.items())

    def _waits(self) -> Iterator[tuple[str, float]]:
        """Yield what is to move on and for how long it has not; only the loop's own silence knows no excuse.

        The last answers end the time that counts: a store may be away since without being known to be.
        """
        if self._beat_at is None:
            return
        yield "the event loop has been stuck", self._now - self._beat_at
        until = min((self._answered_at.get(store, -inf) for store in self._stores), default=self._now)
        for tp, one in self._partitions.items():
            if one.standing.offset < one.end:
                at = f"{tp.topic}/{tp.partition} has stood at offset {one.standing.offset} of {one.end}"
                yield at, until - max(one.moved_at, self._trouble_at)
        for task in self._tasks.values():
            yield f"{task.what} has not ended", until - max(task.moved_at, self._trouble_at)
