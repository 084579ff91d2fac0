"""The parts of the benchmark: which worker, over which topics, with which events."""

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import pairwise
from operator import add
from pathlib import Path

from infra.local import LocalServers
from schemas.topics import Topic
from streams.models.lessons import Lessons
from streams.runtime.topics import create_topics
from streams.usecases.fraud import FRAUD
from tests.bench import footprint, latency
from tests.bench.footprint import Footprint
from tests.bench.latency import Latency
from tests.bench.report import say
from tests.bench.shadowed import SHADOWED, announce, check_shadow, learnt
from tests.bench.throughput import Flow, Throughput, drain, drain_each
from tests.bench.worker import Worker, running
from tests.bench.workload import Workload, id_of

PARTITIONS = 4
EVENTS = 600_000
MIDDLE = EVENTS // 2  # 30 days of events before it, so that every window is full, and as many after it
PASSTHROUGH_WARMUP = 50_000
PLAIN_WARMUP, PLAIN_EVENTS = 2_000, 16_000
START_SECONDS = 60.0
LEARNT_EVENTS = 100_000
SHADOW_TURNS = 4  # alone, shadowed, and both again: the machine's speed changes with time
SWAP_SECONDS = 2.0  # a new model is promised to be in use within one
MODEL_KEY = "a key for the benchmark, and for nothing else"

COMMANDS = {
    "pipeline": ("services.worker", "fraud"),
    "shadows": ("tests.bench.shadowed", "shadowed"),
    "plain": ("tests.bench.plain", "worker", "-l", "warn", "--without-web"),
    "passthrough": ("tests.bench.passthrough",),
}


@dataclass(frozen=True)
class Bench:
    """The servers, the folder for logs, and the events that all parts share."""

    servers: LocalServers
    folder: Path
    events: Workload

    @cached_property
    def lessons(self) -> Lessons:
        """What the models have learnt that are announced."""
        return learnt(self.events.part(0, LEARNT_EVENTS))

    def passthrough(self, rate: float | None) -> tuple[Throughput, Latency | None]:
        """Consume and produce the same bytes; then at `rate`, for what Kafka, producer and consumer take at least."""
        topics = self._flow("passthrough.in", "passthrough.out")
        flow = replace(topics, ids=lambda records: map(id_of, records.values()))
        with self._worker("passthrough") as worker:
            drained = drain(worker, flow, self.events.part(0, PASSTHROUGH_WARMUP), self.events)
            _said("passthrough", drained)
            return drained, None if rate is None else latency.measure(worker, flow, 1, rate)

    def plain(self) -> Throughput:
        """Process the first of the events that the pipeline is measured with in the tutorials' way."""
        flow = self._flow("plain.transactions", "plain.scores")
        end = MIDDLE + PLAIN_EVENTS
        with self._worker("plain") as worker:
            warmup = self.events.part(MIDDLE - PLAIN_WARMUP, MIDDLE)
            return _said("plain", drain(worker, flow, warmup, self.events.part(MIDDLE, end)))

    def pipeline(self) -> tuple[Throughput, float, Latency, Footprint]:
        """Process all events in both stages, then score a live stream at a quarter of the capacity.

        Everything is as by default: a learnt champion with reasons, and its challengers in its shadow.
        """
        kafka, topics = self.servers.kafka.address, FRAUD.topics(PARTITIONS)
        create_topics(kafka, topics)
        announce(kafka, self.lessons, FRAUD.recipes, topics.models.name, MODEL_KEY.encode())
        flow = Flow(kafka, topics.events.name, topics.scores.name, PARTITIONS)
        empty = footprint.used_memory(self.servers.valkey.url)
        with self._worker("pipeline") as worker:
            worker.wait_ready(START_SECONDS)
            drained = drain(worker, flow, self.events.part(0, MIDDLE), self.events.part(MIDDLE, EVENTS))
            _said("pipeline", drained)
            states = footprint.footprint(self.servers.valkey.url, FRAUD.name, FRAUD.entities, empty)
            capacity = latency.capacity(worker, flow, turn=1)
            say("capacity", f"{capacity:,.0f} events/s with everything on this machine")
            say("latency", f"open loop at a quarter of that for {latency.MEASURED_SECONDS:.0f} s")
            return drained, capacity, latency.measure(worker, flow, 2, capacity / 4), states

    def shadows(self) -> tuple[Throughput, Throughput]:
        """Process events with a learnt champion alone and with two challengers in its shadow, in turn."""
        kafka, topics = self.servers.kafka.address, SHADOWED.topics(PARTITIONS)
        create_topics(kafka, topics)
        flow = Flow(kafka, topics.events.name, topics.scores.name, PARTITIONS)
        bounds = range(MIDDLE, EVENTS + 1, (EVENTS - MIDDLE) // SHADOW_TURNS)
        parts = [self.events.part(start, end) for start, end in pairwise(bounds)]

        def serve(turn: int) -> None:
            """Let the champion be alone in even turns and shadowed in odd ones; see that the turn before was so."""
            if turn:
                check_shadow(kafka, topics.scores, () if turn % 2 else SHADOWED.recipes[1:])
            if turn < SHADOW_TURNS:
                recipes = SHADOWED.recipes if turn % 2 else SHADOWED.recipes[:1]
                announce(kafka, self.lessons, recipes, topics.models.name, MODEL_KEY.encode())
                time.sleep(SWAP_SECONDS)

        with self._worker("shadows") as worker:
            worker.wait_ready(START_SECONDS)
            taken = drain_each(worker, flow, self.events.part(0, MIDDLE), parts, serve)
        serve(SHADOW_TURNS)
        alone, shadowed = (reduce(add, taken[first::2]) for first in (0, 1))
        return _said("alone", alone), _said("shadows", shadowed)

    def _flow(self, events: str, results: str) -> Flow:
        kafka = self.servers.kafka.address
        create_topics(kafka, [Topic(events, PARTITIONS), Topic(results, PARTITIONS)])
        return Flow(kafka, events, results, PARTITIONS)

    def _worker(self, name: str) -> AbstractContextManager[Worker]:
        environment = self.servers.environment() | {
            "HEADRACE_PARTITIONS": str(PARTITIONS),
            "HEADRACE_SESSION_SECONDS": "30",  # a held worker sends no heartbeats
            "HEADRACE_MODEL_KEY": MODEL_KEY,
            "HEADRACE_METRICS_PORT": "0",
            "HEADRACE_BENCH_FOLDER": str(self.folder),
        }
        return running(name, COMMANDS[name], environment, self.folder)


def _said(name: str, taken: Throughput) -> Throughput:
    say(
        name,
        f"{taken.per_core_second:,.0f} events per core second "
        f"({taken.events:,} events, {taken.cpu_seconds:.1f} CPU s, {taken.wall_seconds:.1f} s)",
    )
    return taken
