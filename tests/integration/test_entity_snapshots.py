"""Redis is lost and Kafka no longer reaches back: a real worker goes on from Cassandra's snapshot, exactly."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition
from redis import Redis

from infra.cassandra import schema
from infra.processes import Process, Processes
from schemas.codec import encode
from schemas.events import Transaction
from streams.runtime.producer import Producer
from streams.usecases import FRAUD
from tests.integration.test_killed_worker import expected
from tests.local import cassandra_session, created, forget, kept_states, records, within

PARTITIONS = 2
TOPICS = FRAUD.topics(PARTITIONS)
KEYSPACE = "entity_snapshots_test"
PATIENCE = 60.0  # seconds

EVENTS = [
    Transaction(f"e{i}", 1_700_000_000_000 + 60_000 * i, f"c{i % 40}", f"tc{i % 40}", 1.0 + i % 7) for i in range(400)
]
"""Each customer has its terminal, so their order is that of the customer's partition."""


@pytest.fixture
def cassandra(cassandra_server: str) -> Iterator[Any]:
    """A session of a Cassandra that has the tables, all empty."""
    with cassandra_session(cassandra_server) as session:
        session.execute(f"DROP KEYSPACE IF EXISTS {KEYSPACE}")
        for statement in schema(KEYSPACE):
            session.execute(statement)
        session.set_keyspace(KEYSPACE)
        yield session


def test_a_worker_goes_on_from_the_snapshot(
    kafka_server: str, valkey_server: str, cassandra_server: str, cassandra: Any, tmp_path: Path
) -> None:
    """All events scored, and every state to the byte that of a fold of all events, half of which Kafka has lost."""
    url = valkey_server.removesuffix("/0") + "/9"
    Redis.from_url(url).flushdb()
    settings = {
        "HEADRACE_KAFKA": kafka_server,
        "HEADRACE_REDIS": url,
        "HEADRACE_CASSANDRA": cassandra_server,
        "HEADRACE_KEYSPACE": KEYSPACE,
        "HEADRACE_MODEL_KEY": "k" * 32,
        "HEADRACE_PARTITIONS": str(PARTITIONS),
        "HEADRACE_SESSION_SECONDS": "3",
        "HEADRACE_CHECKPOINT_SECONDS": "0.1",
        "HEADRACE_ENTITY_SNAPSHOT_SECONDS": "1",
    }
    with created(kafka_server, TOPICS), Processes(tmp_path, settings) as processes:
        worker = started(processes, "first")
        pay(kafka_server, EVENTS[:200])
        assert all_scored(kafka_server, 200), worker.epitaph()
        assert within(PATIENCE, lambda: archived(cassandra) == 400), (archived(cassandra), worker.epitaph())
        processes.stop(worker)
        forget_all(kafka_server)
        Redis.from_url(url).flushdb()
        worker = started(processes, "second")
        pay(kafka_server, EVENTS[200:])
        assert all_scored(kafka_server, 400), worker.epitaph()
        processes.stop(worker)
        said = worker.log.read_text()
        assert len(re.findall("restored .* states from the snapshot of offset", said)) == 2 * PARTITIONS
        assert not re.search("are gone|WARNING", said)
    assert kept_states(url) == expected(EVENTS)


def started(processes: Processes, name: str) -> Process:
    process = processes.start(name, "services.worker", "fraud")
    processes.wait_ready(PATIENCE)
    return process


def pay(kafka: str, events: list[Transaction]) -> None:
    with Producer(kafka, linger_ms=1) as producer:
        for event in events:
            producer.send(TOPICS.events.name, encode(event), key=event.customer_id.encode())


def all_scored(kafka: str, count: int) -> bool:
    return within(PATIENCE, lambda: len({one.key for one in records(kafka, TOPICS.scores.name)}) == count)


def archived(session: Any) -> int:
    """The input records that all snapshots together cover."""
    return sum(row.position for row in session.execute("SELECT position FROM entity_snapshots"))


def forget_all(kafka: str) -> None:
    """Let Kafka delete every event and hop message, as retention does."""
    places = [TopicPartition(topic.name, at) for topic in (TOPICS.events, *TOPICS.hops) for at in range(PARTITIONS)]
    consumer = KafkaConsumer(bootstrap_servers=kafka)
    ends = consumer.end_offsets(places)
    forget(kafka, ends)
    deadline = time.monotonic() + PATIENCE
    while consumer.beginning_offsets(places) != ends:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    consumer.close()
