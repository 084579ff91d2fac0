"""How soon a worker's replacement scores: `python -m tests.recovery [ENTITIES]`, on servers of its own.

1. As many entity states as asked for are kept in Valkey, through the stages' own claim and checkpoint.
2. A worker takes the partitions over; payments come at a steady rate, each of a customer and at a terminal that
   have a state. Once it scores, `kill -9`.
3. Its replacement is started at once. From the moment at which Kafka's group says that every partition is its own
   to its first score on the topic: that is what is measured. Payments never stop, so it finds a backlog.

Every score must count the events of the state that was kept, and its own: the states are used, not made anew.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

from infra.local import LocalServers
from infra.processes import Processes
from schemas.codec import encode
from schemas.events import Transaction
from streams.agents.stage import StageAgent
from streams.metrics import Metrics
from streams.runtime.partitioner import partition_of
from streams.runtime.producer import Producer
from streams.runtime.records import Spans
from streams.stores.redis import RedisStateStore
from streams.usecases import FRAUD
from tests.local import created, within

ENTITIES = 1_000_000
BAR = 5.0  # seconds
PARTITIONS = 4
TOPICS = FRAUD.topics(PARTITIONS)
EARLIER = 4  # events in each state that is kept, an hour apart
AT_ONCE = 10_000  # states a checkpoint
RATE = 500  # payments/s
PATIENCE = 60.0  # seconds
GROUP = FRAUD.group("stages")
SETTINGS = {
    "HEADRACE_MODEL_KEY": "a key for tests, and for nothing else",
    "HEADRACE_PARTITIONS": str(PARTITIONS),
    "HEADRACE_SESSION_SECONDS": "3",
}


class Acknowledged:
    """Stands where a sender stands: nothing is sent while the states are made."""

    def mark(self) -> None:
        """There is nothing to wait for."""

    async def acked(self, mark: None) -> None:
        """There is nothing to wait for."""


async def keep_states(redis: str, count: int, now: int) -> None:
    """Keep `count` states, half customers and half terminals, each of EARLIER events before `now` (ms)."""
    store = RedisStateStore(redis, FRAUD.features.longest_keep)
    sender: Any = Acknowledged()
    for index, letter in enumerate("ct"):
        agent = StageAgent(FRAUD, index, TOPICS, sender, store, Metrics("recovery"), 0)
        names = [b"%c%d" % (ord(letter), number) for number in range(count // 2)]
        homes = partition_of(Spans.of(names), PARTITIONS)
        for partition in range(PARTITIONS):
            await agent.claim(partition)
            mine = [names[row] for row in np.flatnonzero(homes == partition)]
            for start in range(0, len(mine), AT_ONCE):
                await _keep(agent, partition, mine[start : start + AT_ONCE], sender, now)
            agent.release(partition)
    await store.close()


async def _keep(agent: StageAgent, partition: int, names: list[bytes], sender: Any, now: int) -> None:
    rows = EARLIER * len(names)
    times = np.repeat(now - 3_600_000 * np.arange(EARLIER, 0, -1), len(names))
    owned = agent.owned[partition]
    owned.table.fold(names * EARLIER, np.zeros(rows, np.int8), times, np.full((rows, 2), 12.5))
    owned.folded(0, passed=True)  # the topics are new: there is nothing before offset 0
    assert await owned.checkpoint(sender) == len(names)


class Payments(threading.Thread):
    """Sends payments at a steady rate until closed, `count` at most, each of another customer and terminal."""

    def __init__(self, kafka: str, count: int) -> None:
        super().__init__(daemon=True)
        self._kafka, self._count = kafka, count
        self._closed = threading.Event()
        self.sent = 0

    def run(self) -> None:
        with Producer(self._kafka, linger_ms=1) as producer:
            began = time.monotonic()
            while not self._closed.is_set() and self.sent < self._count:
                number = self.sent
                customer = f"c{number}"
                event = Transaction(f"e{number}", int(time.time() * 1000), customer, f"t{number}", 12.5)
                producer.send(TOPICS.events.name, encode(event), key=customer.encode())
                self.sent += 1
                self._closed.wait(max(0.0, began + self.sent / RATE - time.monotonic()))

    def close(self) -> None:
        """Send no more, and wait until all is acknowledged."""
        self._closed.set()
        if self.ident:
            self.join()


class Scores:
    """Reads the scores topic as they come."""

    def __init__(self, kafka: str) -> None:
        self._consumer = KafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False, fetch_max_wait_ms=20)
        self._consumer.assign([TopicPartition(TOPICS.scores.name, number) for number in range(PARTITIONS)])
        self._consumer.seek_to_beginning()
        self.features: dict[str, dict[str, float]] = {}
        self._seen = 0

    def poll(self) -> int:
        """Take in what comes within a few ms, and return how many scores have come since the beginning."""
        found = [one for batch in self._consumer.poll(20).values() for one in batch]
        self.features |= {one.key.decode(): json.loads(one.value)["features"] for one in found}
        self._seen += len(found)
        return self._seen

    def drain(self) -> int:
        """Take in what comes until nothing does for a while, and return the same."""
        seen, quiet = self._seen, time.monotonic()
        while time.monotonic() - quiet < 0.5:
            if self.poll() > seen:
                seen, quiet = self._seen, time.monotonic()
        return seen

    def close(self) -> None:
        self._consumer.close()


class Assignment(threading.Thread):
    """Watches Kafka's group until another member than before has every partition: `at` is when (monotonic)."""

    def __init__(self, kafka: str, before: str | None = None) -> None:
        super().__init__(daemon=True)
        self._kafka, self._before = kafka, before
        self.member: str | None = None
        self.at = 0.0

    def run(self) -> None:
        admin = KafkaAdminClient(bootstrap_servers=self._kafka)
        deadline = time.monotonic() + PATIENCE
        while self.member is None and time.monotonic() < deadline:
            group = admin.describe_groups([GROUP])[GROUP]
            if group["group_state"] == "Stable" and len(group["members"]) == 1:
                self._look(group["members"][0])
            time.sleep(0.01)
        admin.close()

    def _look(self, member: dict[str, Any]) -> None:
        topics = member["member_assignment"]["assigned_partitions"]
        whole = sum(len(one["partitions"]) for one in topics) == PARTITIONS * len(FRAUD.features.stages)
        if whole and member["member_id"] != self._before:
            self.member, self.at = member["member_id"], time.monotonic()


@dataclass(frozen=True)
class Recovery:
    """What was measured, in seconds: `first_score` from the replacement's assignment, `pause` from the kill."""

    entities: int
    keeping: float
    first_score: float
    pause: float
    payments: int


def recover(kafka: str, redis: str, entities: int, logs: Path) -> Recovery:
    """Measure the recovery of a worker with so many entity states in an empty Redis.

    Raises AssertionError where a payment has no score, or one that is not what the kept states make it.
    """
    began = time.monotonic()
    asyncio.run(keep_states(redis, entities, int(time.time() * 1000)))
    keeping = time.monotonic() - began
    settings = SETTINGS | {"HEADRACE_KAFKA": kafka, "HEADRACE_REDIS": redis}
    with (
        created(kafka, TOPICS),
        closing(Scores(kafka)) as scores,
        Processes(logs, settings) as processes,
        closing(Payments(kafka, entities // 2)) as payments,
    ):
        worker = processes.start("worker", "services.worker", "fraud")
        processes.wait_ready(PATIENCE)
        first = _watched(kafka)
        first.join()
        payments.start()
        assert within(PATIENCE, lambda: scores.poll() > RATE), worker.epitaph()
        worker.signal(signal.SIGKILL)
        worker.popen.wait()
        killed = time.monotonic()
        processes.all.remove(worker)
        second = _watched(kafka, first.member)
        replacement = processes.start("replacement", "services.worker", "fraud")
        seen = scores.drain()
        assert not second.member, "the replacement is to be assigned after the last score of the worker"
        assert within(PATIENCE, lambda: scores.poll() > seen), replacement.epitaph()
        scored = time.monotonic()
        second.join()
        payments.close()
        assert within(PATIENCE, lambda: scores.poll() >= 0 and len(scores.features) == payments.sent), (
            replacement.epitaph()
        )
        processes.check()
    counts = {(one["customer_tx_count_30d"], one["terminal_tx_count_30d"]) for one in scores.features.values()}
    assert counts == {(EARLIER + 1, EARLIER + 1)}, "states were lost or made anew"
    return Recovery(entities, keeping, scored - second.at, scored - killed, payments.sent)


def _watched(kafka: str, before: str | None = None) -> Assignment:
    watcher = Assignment(kafka, before)
    watcher.start()
    return watcher


def main() -> int:
    """Measure on servers of its own; the exit code is 0 if the replacement scored within the bar."""
    parser = argparse.ArgumentParser(prog="python -m tests.recovery", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("entities", nargs="?", type=int, default=ENTITIES, metavar="ENTITIES")
    entities = parser.parse_args().entities
    with tempfile.TemporaryDirectory(prefix="headrace-recovery-") as data:
        folder = Path(data)
        with LocalServers(folder, only=("kafka", "valkey")) as servers:
            taken = recover(servers.kafka.address, servers.valkey.url, entities, folder / "logs")
    print(
        f"{taken.entities:,} entities, kept in {taken.keeping:.1f} s. After kill -9 under {RATE} payments/s:\n"
        f"  first score {taken.first_score:.2f} s after the replacement was assigned (bar: {BAR:.0f} s),\n"
        f"  {taken.pause:.2f} s after the kill, of which {SETTINGS['HEADRACE_SESSION_SECONDS']} s are the session's;\n"
        f"  all {taken.payments:,} payments scored on the states that were kept"
    )
    return 0 if taken.first_score <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
