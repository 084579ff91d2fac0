"""One campaign: servers, fleet, load and faults; then the pipeline is let finish, and judged."""

import asyncio
import json
import random
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from infra.local import LocalServers
from infra.local.cluster import LocalCluster
from infra.processes import Process, Processes
from streams.runtime.topics import create_topics
from streams.usecases import FRAUD
from tests.chaos import found
from tests.chaos.drained import drained
from tests.chaos.faults import SESSION_SECONDS, Fault, World, schedule
from tests.chaos.fleet import Fleet, NotDone
from tests.chaos.oracle import expected
from tests.chaos.pauses import longest_pauses, rate
from tests.chaos.verdict import (
    Verdict,
    judge_course,
    judge_dead_letters,
    judge_ends,
    judge_history,
    judge_learning,
    judge_scores,
    judge_states,
)
from tests.chaos.workload import Workload
from tests.local import kept_states

KEYSPACE = "chaos"
LONGEST = 3.0
ACK_SECONDS = 60.0  # for the last records of the load
GAP_SECONDS = 3.0  # between two faults that come late
LEAD_SECONDS = 5.0  # the load generator imports and makes its workload in this time
SETTINGS = {
    "HEADRACE_KEYSPACE": KEYSPACE,
    "HEADRACE_SESSION_SECONDS": str(SESSION_SECONDS),
    "HEADRACE_LABEL_WAIT_SECONDS": "5",
    "HEADRACE_MAX_ENTITIES": "8000",  # fewer than there are, so that they come and go
    "HEADRACE_ENTITY_SNAPSHOT_SECONDS": "45",  # a wiped Valkey is rebuilt from Cassandra, if it has one by then
    "HEADRACE_METRICS_PORT": "0",
}


@dataclass(frozen=True)
class Plan:
    """What a campaign does: `seconds` of load, of which the last `quiet` are without faults.

    Where faults take longer than they should, the load goes on for longer, up to LONGEST times.
    """

    seed: int
    seconds: float
    rate: float
    faults: Sequence[Fault]
    quiet: float
    warm: float = 15.0
    partitions: int = 4
    workers: int = 1
    cassandra_seconds: float = 60.0
    held: float = 15 / 16  # of the rate, at the end: 3,000 of 3,200


class Campaign:
    """A plan carried out on servers of its own; `say` is told what happens."""

    def __init__(
        self, plan: Plan, servers: LocalServers | LocalCluster, logs: Path, say: Callable[[str], None]
    ) -> None:
        self.plan, self.servers = plan, servers
        self.topics = FRAUD.topics(plan.partitions)
        self.verdict = Verdict()
        self._logs, self._told = logs, say
        self._key = secrets.token_hex(32)
        self._begin = 0.0
        self._ends_told = 0

    def run(self) -> Verdict:
        """Carry it out on running servers; return the verdict."""
        plan = self.plan
        create_topics(self.servers.kafka.address, self.topics)
        settings = SETTINGS | {"HEADRACE_MODEL_KEY": self._key, "HEADRACE_PARTITIONS": str(plan.partitions)}
        environment = self.servers.environment() | settings
        with Processes(self._logs, environment) as processes, Fleet(processes, FRAUD.name) as fleet:
            fleet.start({"worker": plan.workers, "learner": 1, "history": 1})
            self._begin = time.time() + LEAD_SECONDS
            workload = Workload(plan.seed, plan.rate, LONGEST * plan.seconds, int(self._begin * 1000))
            load = self._start_load(processes, workload)
            world = World(
                self.servers, self.topics.scores, fleet, random.Random(plan.seed), self.say, plan.cassandra_seconds
            )
            self._carry_out(world, fleet)
            quiet = (time.time(), time.time() + plan.quiet)
            self._watch(fleet, quiet[1])
            sent = self._stop(load, processes)
            self.say("the load is over; letting the pipeline finish")
            self.verdict.unless(*drained(self.servers.kafka.address, self.topics))
            for epitaph in fleet.stop():
                self.verdict.unless(False, f"did not end well: {epitaph}")
            self.say("stopped; comparing with the oracle")
            asyncio.run(self._judge(workload, sent, world, quiet))
            judge_ends(self.verdict, fleet.ends)
            self.verdict.say("started", ", ".join(f"{count} {name}" for name, count in sorted(fleet.starts.items())))
        return self.verdict

    def say(self, what: str) -> None:
        """Tell something with the campaign's time."""
        self._told(f"{time.time() - self._begin:7.1f} s  {what}" if self._begin else what)

    def _start_load(self, processes: Processes, workload: Workload) -> Process:
        arguments = (self.plan.partitions, workload.seed, workload.rate, workload.seconds, workload.begin_ms)
        return processes.start("load", "tests.chaos.load", self.servers.kafka.address, *map(str, arguments))

    def _carry_out(self, world: World, fleet: Fleet) -> None:
        plan, over = self.plan, 0.0
        for at, fault in schedule(plan.faults, world.chance, plan.warm, plan.seconds - plan.quiet):
            self._watch(fleet, max(self._begin + at, over + GAP_SECONDS))
            try:
                fault.do(world)
            except NotDone as error:  # nor would the others find anything
                self.say(f"  {fault.name} was not done: {error}")
                self.verdict.unless(False, f"{fault.name} was not done, nor what was to follow: {error}")
                break
            over = time.time()
        self._watch(fleet, max(self._begin + plan.seconds - plan.quiet, over + GAP_SECONDS))
        self.say("no more faults")

    def _watch(self, fleet: Fleet, until: float) -> None:
        """Tell which processes end by themselves, until a moment."""
        while time.time() < until:
            time.sleep(0.1)
            for end in fleet.ends[self._ends_told :]:
                self.say(f"  {end}")
                self._ends_told += 1

    def _stop(self, load: Process, processes: Processes) -> int:
        """End the load; return how many events it has sent."""
        self.verdict.unless(load.alive, f"the load ended early: {load.epitaph()}")
        load.signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            load.popen.wait(ACK_SECONDS)
        processes.all.remove(load)
        load.signal(signal.SIGKILL)
        self.verdict.unless(load.popen.returncode == 0, f"the load failed: {load.epitaph()}")
        told = json.loads(load.log.read_text().splitlines()[-1]) if load.popen.returncode == 0 else {"events": 0}
        late = ", ".join(f"{told[name]:.2f} s {name[5:]}" for name in ("late_p50", "late_max") if name in told)
        self.verdict.say("load", f"{self.plan.rate:,.0f} events/s, sends late by {late}")
        return int(told["events"])

    async def _judge(self, workload: Workload, sent: int, world: World, quiet: tuple[float, float]) -> None:
        kafka, verdict = self.servers.kafka.address, self.verdict
        must = await expected(kafka, self.topics, workload)
        scores = await found.scores(kafka, self.topics.scores, workload)
        judge_scores(verdict, workload, sent, must, scores)
        judge_states(verdict, must, kept_states(self.servers.valkey.url))
        labels = await asyncio.to_thread(found.labels, self.servers.cassandra.address, KEYSPACE)
        announced, resumable = await found.models(kafka, self.topics)
        judge_learning(verdict, must, announced, self._key.encode(), labels)
        judge_course(verdict, must, resumable, self._key.encode())
        judge_dead_letters(verdict, must, *await found.dead_letters(kafka, self.topics.dlq))
        kept = await asyncio.to_thread(found.history, self.servers.cassandra.address, KEYSPACE, workload)
        judge_history(verdict, scores, *kept)
        held = rate(scores, *quiet)
        verdict.say("final quiet run", f"{held:,.0f} events/s scored over {quiet[1] - quiet[0]:.0f} s")
        verdict.unless(
            held >= self.plan.held * self.plan.rate, f"only {held:,.0f} of {self.plan.rate:,.0f} events/s at the end"
        )
        begun = [at for at, _ in world.log]
        for (at, what), pause in zip(world.log, longest_pauses(scores, begun, quiet[1]), strict=True):
            verdict.say(f"  {at - self._begin:5.0f} s", f"{what:<48} longest pause {pause:6.2f} s")
