"""One campaign: servers, fleet, load and faults; then the pipeline is let finish, and judged."""

import asyncio
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.local import LocalServers
from infra.processes import Process, Processes
from streams.runtime.topics import create_topics
from streams.usecases import FRAUD
from tests.chaos import found
from tests.chaos.drained import drained
from tests.chaos.faults import SESSION_SECONDS, Fault, World, schedule
from tests.chaos.fleet import End, Fleet
from tests.chaos.oracle import expected
from tests.chaos.pauses import longest_pauses, rate
from tests.chaos.verdict import (
    Verdict,
    judge_dead_letters,
    judge_history,
    judge_learning,
    judge_scores,
    judge_states,
)
from tests.chaos.workload import Workload

KEYSPACE = "chaos"
HELD = 15 / 16  # of the rate asked for: 3,000 of 3,200; the last events are scored after the window
LEAD_SECONDS = 5.0  # the load generator imports and makes its workload in this time
SETTINGS = {
    "HEADRACE_KEYSPACE": KEYSPACE,
    "HEADRACE_SESSION_SECONDS": str(SESSION_SECONDS),
    "HEADRACE_LABEL_WAIT_SECONDS": "5",
    "HEADRACE_MAX_ENTITIES": "8000",  # fewer than there are, so that they come and go
    "HEADRACE_METRICS_PORT": "0",
}


@dataclass(frozen=True)
class Plan:
    """What a campaign does: `seconds` of load, of which the last `quiet` are without faults."""

    seed: int
    seconds: float
    rate: float
    faults: Sequence[Fault]
    quiet: float
    warm: float = 15.0
    partitions: int = 4
    cassandra_seconds: float = 60.0


class Campaign:
    """A plan carried out on servers of its own; `say` is told what happens."""

    def __init__(self, plan: Plan, servers: LocalServers, logs: Path, say: Callable[[str], None]) -> None:
        self.plan, self.servers = plan, servers
        self.topics = FRAUD.topics(plan.partitions)
        self.verdict = Verdict()
        self._logs, self._told = logs, say
        self._key = secrets.token_hex(32)
        self._begin = 0.0

    def run(self) -> Verdict:
        """Carry it out on running servers; return the verdict."""
        plan = self.plan
        create_topics(self.servers.kafka.address, self.topics)
        settings = SETTINGS | {"HEADRACE_MODEL_KEY": self._key, "HEADRACE_PARTITIONS": str(plan.partitions)}
        with Processes(self._logs, self.servers.environment() | settings) as processes:
            fleet = Fleet(processes, FRAUD.name)
            fleet.start({"worker": 1, "learner": 1, "history": 1})
            self._begin = time.time() + LEAD_SECONDS
            workload = Workload(plan.seed, plan.rate, plan.seconds, int(self._begin * 1000))
            load = self._start_load(processes, workload)
            world = World(self.servers, fleet, random.Random(plan.seed), self.say, plan.cassandra_seconds)
            self._carry_out(world, load, fleet)
            quiet_from = time.time()
            self._wait_for(load)
            quiet = (quiet_from, self._begin + plan.seconds)
            self.say("the load is over; letting the pipeline finish")
            self.verdict.unless(*drained(self.servers.kafka.address, self.topics))
            for epitaph in fleet.stop():
                self.verdict.unless(False, f"did not end well: {epitaph}")
            self.say("stopped; comparing with the oracle")
            asyncio.run(self._judge(workload, world, quiet))
            self._tell_ends(fleet.ends, fleet.starts)
        return self.verdict

    def say(self, what: str) -> None:
        """Tell something with the campaign's time."""
        self._told(f"{time.time() - self._begin:7.1f} s  {what}" if self._begin else what)

    def _start_load(self, processes: Processes, workload: Workload) -> Process:
        arguments = (self.plan.partitions, workload.seed, workload.rate, workload.seconds, workload.begin_ms)
        return processes.start("load", "tests.chaos.load", self.servers.kafka.address, *map(str, arguments))

    def _carry_out(self, world: World, load: Process, fleet: Fleet) -> None:
        plan, told = self.plan, 0
        for at, fault in schedule(plan.faults, world.chance, plan.warm, plan.seconds - plan.quiet):
            while time.time() < self._begin + at:
                time.sleep(0.1)
                told = self._tell_new(fleet.ends, told)
            fault.do(world)
        until = self._begin + plan.seconds - plan.quiet
        while time.time() < until:
            time.sleep(0.1)
            told = self._tell_new(fleet.ends, told)
        self.say("no more faults")
        self.verdict.unless(load.alive, f"the load ended early: {load.epitaph()}")

    def _tell_new(self, ends: list[End], told: int) -> int:
        for end in ends[told:]:
            self.say(f"  {end.name} ended by itself ({end.code}): {end.why}")
        return len(ends)

    def _wait_for(self, load: Process) -> None:
        patience = self._begin + self.plan.seconds + 120 - time.time()
        load.popen.wait(max(1.0, patience))
        self.verdict.unless(load.popen.returncode == 0, f"the load failed: {load.epitaph()}")
        self.verdict.say(
            "load", f"{self.plan.rate:,.0f} events/s, sends late by (s) {load.epitaph().splitlines()[-1].strip()}"
        )

    async def _judge(self, workload: Workload, world: World, quiet: tuple[float, float]) -> None:
        kafka, verdict = self.servers.kafka.address, self.verdict
        must = await expected(kafka, self.topics, workload)
        scores = await found.scores(kafka, self.topics.scores, workload)
        judge_scores(verdict, workload, must, scores)
        judge_states(verdict, must, found.states(self.servers.valkey.url))
        labels = await asyncio.to_thread(found.labels, self.servers.cassandra.address, KEYSPACE)
        judge_learning(verdict, must, await found.model(kafka, self.topics), self._key.encode(), labels)
        judge_dead_letters(verdict, must, *await found.dead_letters(kafka, self.topics.dlq))
        kept = await asyncio.to_thread(found.history, self.servers.cassandra.address, KEYSPACE, workload)
        judge_history(verdict, scores, *kept)
        held = rate(scores, *quiet)
        verdict.say("final quiet run", f"{held:,.0f} events/s scored over {quiet[1] - quiet[0]:.0f} s")
        verdict.unless(held >= HELD * self.plan.rate, f"only {held:,.0f} of {self.plan.rate:,.0f} events/s at the end")
        begun = [at for at, _ in world.log]
        for (at, what), pause in zip(world.log, longest_pauses(scores, begun, quiet[1]), strict=True):
            verdict.say(f"  {at - self._begin:5.0f} s", f"{what:<48} longest pause {pause:6.2f} s")

    def _tell_ends(self, ends: list[End], starts: Counter[str]) -> None:
        reasons = Counter(_kind(end.why) for end in ends)
        what = ", ".join(f"{count} × {reason}" for reason, count in reasons.most_common())
        self.verdict.say("ended by themselves", f"{len(ends)} ({what})" if ends else "none")
        self.verdict.say("started", ", ".join(f"{count} {name}" for name, count in sorted(starts.items())))


def _kind(why: str) -> str:
    """Return a last line without what differs from one process to the next."""
    words = why.partition(" ends: ")[2] or why
    return " ".join(word for word in words.split() if not any(c.isdigit() for c in word))[:60]
