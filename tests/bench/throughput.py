"""Events per core second: a worker drains a topic that was filled while it was held.

1. start the worker and let it process the warm-up: imports, compilation, loading of windows and models;
2. hold it (SIGSTOP), fill its topic with the events to measure, read its CPU time;
3. let it go until every event's result is on the output topic, and `SETTLE_SECONDS` more, so that the last
   checkpoint is paid for; read its CPU time again.

So only the worker's own CPU seconds count, and all of them: the broker, Valkey and the producer are not in them.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tqdm import tqdm

from streams.runtime.records import Records
from tests.bench.feed import Counter, load
from tests.bench.worker import BenchError, Worker
from tests.bench.workload import Workload

SETTLE_SECONDS = 1.0
STALL_SECONDS = 60.0
POLL_SECONDS = 0.1


Ids = Callable[[Records], Iterable[bytes | None]]


@dataclass(frozen=True)
class Flow:
    """Where a worker reads and writes: one event in, one record out; and how `ids` finds the event of a record."""

    kafka: str
    events: str
    results: str
    partitions: int
    ids: Ids = Records.keys


@dataclass(frozen=True)
class Throughput:
    """What draining took; `wall_seconds` is from letting the worker go to the last result. Of several in turn the
    earlier ones are warm-up to the later."""

    events: int
    warmup_events: int
    cpu_seconds: float
    wall_seconds: float

    @property
    def per_core_second(self) -> float:
        return self.events / self.cpu_seconds

    def __add__(self, other: "Throughput") -> "Throughput":
        """Return what draining both took; the warm-up is that of the first."""
        cpu, wall = self.cpu_seconds + other.cpu_seconds, self.wall_seconds + other.wall_seconds
        return Throughput(self.events + other.events, self.warmup_events, cpu, wall)


def drain(worker: Worker, flow: Flow, warmup: Workload, events: Workload) -> Throughput:
    """Measure the worker over `events`, after `warmup`; raises BenchError where results stay out."""
    (taken,) = drain_each(worker, flow, warmup, [events])
    return taken


def drain_each(
    worker: Worker,
    flow: Flow,
    warmup: Workload,
    parts: Sequence[Workload],
    before: Callable[[int], None] = lambda part: None,
) -> list[Throughput]:
    """Measure the worker over each of `parts` in turn, after `warmup`; `before` is called with each one's number."""
    measured = []
    with Counter(flow.kafka, flow.results, flow.partitions) as results:
        asyncio.run(load(flow.kafka, flow.events, flow.partitions, warmup))
        _await(worker, results, len(warmup), "warm-up")
        for number, events in enumerate(parts):
            before(number)
            measured.append(_drain(worker, flow, results, events))
    return measured


def _drain(worker: Worker, flow: Flow, results: Counter, events: Workload) -> Throughput:
    earlier = results.count()
    with worker.held():
        asyncio.run(load(flow.kafka, flow.events, flow.partitions, events))
        cpu, begin = worker.cpu_seconds(), time.monotonic()
    _await(worker, results, earlier + len(events), "measured")
    wall = time.monotonic() - begin
    time.sleep(SETTLE_SECONDS)
    cpu = worker.cpu_seconds() - cpu
    if surplus := results.count() - earlier - len(events):
        raise BenchError(f"{worker.name}: {surplus} results more than events")
    return Throughput(len(events), earlier, cpu, wall)


def _await(worker: Worker, results: Counter, expected: int, what: str) -> None:
    """Wait until so many results are there; give up when none comes for STALL_SECONDS."""
    seen = results.count()
    moved = time.monotonic()
    with tqdm(
        total=expected, initial=seen, desc=f"{worker.name} {what}", unit=" events", leave=False, disable=None
    ) as bar:
        while seen < expected:
            time.sleep(POLL_SECONDS)
            worker.check()
            count = results.count()
            if count > seen:
                bar.update(count - seen)
                seen, moved = count, time.monotonic()
            elif time.monotonic() - moved > STALL_SECONDS:
                raise BenchError(
                    f"{worker.name}: {expected - seen} of {expected} {what} results missing, and none came "
                    f"for {STALL_SECONDS:.0f} s ({worker.log})"
                )
