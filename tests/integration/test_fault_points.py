"""A worker killed exactly at any boundary between two steps leaves no trace: every score, every state is exact."""

import json
import random
import re
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from kafka import KafkaConsumer, TopicPartition
from redis import Redis

from infra.processes import Process, Processes
from schemas.codec import encode
from schemas.events import Transaction
from schemas.topics import DAY_MS
from streams.runtime.faults import POINTS
from streams.runtime.partitioner import partition_of
from streams.runtime.producer import Producer
from streams.runtime.records import Spans
from streams.usecases import FRAUD
from tests.local import created, kept_states, within
from tests.oracle import States, expected

PARTITIONS, CUSTOMERS, WORKERS = 4, 60, 2
TOPICS = FRAUD.topics(PARTITIONS)
PASSINGS = {"given-up": 1, "assigned": 1}
PASSINGS |= {point: 3 for point in POINTS if point not in PASSINGS}
"""Late enough that there is something to lose; partitions are given up whenever another worker comes or goes."""

HOUR_MS = 3_600_000


class Payments(threading.Thread):
    """Payments, some of them late or far too late, until told to stop; each terminal's come from one partition."""

    def __init__(self, kafka: str) -> None:
        super().__init__(daemon=True)
        self.sent: list[Transaction] = []
        self._kafka, self._enough = kafka, threading.Event()
        customers = [f"c{number}" for number in range(CUSTOMERS)]
        homes = partition_of(Spans.of([customer.encode() for customer in customers]), PARTITIONS).tolist()
        self._homes = list(zip(customers, homes, strict=True))

    def run(self) -> None:
        draw, now = random.Random(5), int(time.time() * 1000) - DAY_MS
        with Producer(self._kafka, linger_ms=2) as producer:
            while not self._enough.wait(0.02):
                for _ in range(2):
                    now += draw.randrange(1000)
                    customer, home = draw.choice(self._homes)
                    late = draw.choices([0, HOUR_MS, 40 * DAY_MS], [90, 8, 2])[0]
                    event = Transaction(
                        f"e{len(self.sent)}", now - late, customer, f"t{home}.{draw.randrange(5)}", draw.random() * 100
                    )
                    producer.send(TOPICS.events.name, encode(event), key=customer.encode())
                    self.sent.append(event)

    def stop(self) -> list[Transaction]:
        self._enough.set()
        self.join(30)
        return self.sent


@dataclass(frozen=True)
class Outcome:
    """How each armed worker ended, what was sent, and what came of it."""

    ends: dict[str, int]
    sent: list[Transaction]
    vectors: dict[str, set[bytes]]
    states: States


@pytest.fixture(scope="module")
def outcome(kafka_server: str, valkey_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """Two workers at a time under a steady load, each armed with another point, until every point has had its own."""
    url = valkey_server.removesuffix("/0") + "/8"
    Redis.from_url(url).flushdb()
    environment = {
        "HEADRACE_KAFKA": kafka_server,
        "HEADRACE_REDIS": url,
        "HEADRACE_CASSANDRA": "127.0.0.1:1",  # there is none
        "HEADRACE_MODEL_KEY": "k" * 32,
        "HEADRACE_PARTITIONS": str(PARTITIONS),
        "HEADRACE_SESSION_SECONDS": "1.5",
        "HEADRACE_CHECKPOINT_SECONDS": "0.2",
    }
    payments = Payments(kafka_server)
    with (
        created(kafka_server, TOPICS),
        Processes(tmp_path_factory.mktemp("workers"), environment) as processes,
    ):
        payments.start()
        faults = [f"{point}:{number}" for point, number in PASSINGS.items()]
        workers = processes.start("workers", "tests.forked", *faults)
        assert within(150, lambda: ends(workers).keys() == POINTS.keys()), workers.epitaph()
        sent = payments.stop()
        vectors = scored(kafka_server, len(sent))
        processes.stop()  # the last checkpoint
        yield Outcome(ends(workers), sent, vectors, kept_states(url))


def ends(process: Process) -> dict[str, int]:
    """Return the exit code of the worker of each point, as far as they have ended."""
    told = re.findall(r"^(\S+):\d+ (-?\d+)$", process.log.read_text(), re.MULTILINE)
    return {point: int(code) for point, code in told}


def scored(kafka: str, count: int) -> dict[str, set[bytes]]:
    """Return the feature vectors that each event was scored on, once so many events are scored."""
    vectors: dict[str, set[bytes]] = {}
    consumer = KafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False, max_poll_records=5000)
    consumer.assign([TopicPartition(TOPICS.scores.name, number) for number in range(PARTITIONS)])
    consumer.seek_to_beginning()
    deadline, idle = time.monotonic() + 90, 0
    while len(vectors) < count or idle < 2:  # until there is nothing more, as an event may be scored again
        assert time.monotonic() < deadline, f"{len(vectors)} of {count} events are scored"
        found = [record for batch in consumer.poll(500).values() for record in batch]
        idle = 0 if found else idle + 1
        for record in found:
            score = json.loads(record.value)
            vector = np.array(list(score["features"].values())).tobytes()
            vectors.setdefault(score["event_id"], set()).add(vector)
    consumer.close()
    return vectors


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_died_there(outcome: Outcome, point: str) -> None:
    """Each boundary was the last that some worker saw."""
    assert outcome.ends[point] == -signal.SIGKILL


def test_the_states_are_those_of_an_uninterrupted_run(outcome: Outcome) -> None:
    """Nothing is lost and nothing counts twice, bit for bit."""
    _, uninterrupted = expected(outcome.sent)
    assert outcome.states.keys() == uninterrupted.keys()
    assert [one for one in uninterrupted if outcome.states[one] != uninterrupted[one]] == []


def test_the_scores_are_those_of_an_uninterrupted_run(outcome: Outcome) -> None:
    """Every event is scored on the features it should have; one that was scored again, on the same."""
    vectors, _ = expected(outcome.sent)
    assert outcome.vectors == {event: {vector} for event, vector in vectors.items()}
