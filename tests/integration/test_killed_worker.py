"""A worker killed in mid-stream is replaced, and nothing shows it: every event scored, every state exact."""

import json
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import MemberToRemove
from kafka.errors import NoError
from redis import Redis

from infra.processes import Process, Processes
from schemas.codec import encode
from schemas.events import Transaction
from services.simulator.fraud import Simulation
from streams.features.pipeline import Events, Labels, Pipeline
from streams.runtime.producer import Producer
from streams.runtime.topics import asked, record_counts
from streams.usecases import FRAUD
from tests.local import created, kept_states, within

pytestmark = pytest.mark.timeout(240)

COUNT, PARTITIONS = 20_000, 4
TOPICS = FRAUD.topics(PARTITIONS)
START = 19_700 * 86_400_000


def payments() -> list[Transaction]:
    """Return simulated payments of a day, many of them at the same few terminals."""
    block = Simulation(11, 400, 50, 1.1 * COUNT / 86_400).block(START, START + 86_400_000)
    columns = (block.times.tolist(), block.customers, block.terminals, block.amounts.tolist())
    rows = list(zip(*columns, strict=True))[:COUNT]
    return [Transaction(f"e{i}", time, f"c{c}", f"t{t}", amount) for i, (time, c, t, amount) in enumerate(rows)]


def test_a_killed_worker_is_replaced_and_nothing_shows_it(
    kafka_server: str, valkey_server: str, tmp_path: Path
) -> None:
    """After `kill -9` in mid-stream the replacement goes on: all events scored, states the backtest's to the byte."""
    url = valkey_server.removesuffix("/0") + "/7"
    Redis.from_url(url).flushdb()
    environment = {
        "HEADRACE_KAFKA": kafka_server,
        "HEADRACE_REDIS": url,
        "HEADRACE_MODEL_KEY": "k" * 32,
        "HEADRACE_PARTITIONS": str(PARTITIONS),
        "HEADRACE_SESSION_SECONDS": "6",
    }
    events = payments()
    with created(kafka_server, TOPICS), Processes(tmp_path, environment) as processes:
        first = processes.start("first", "services.worker", "fraud")
        processes.start("second", "services.worker", "fraud")
        processes.wait_ready(60)
        sending = threading.Thread(target=send, args=(kafka_server, events))
        sending.start()
        assert within(60, lambda: scored(kafka_server) > COUNT // 20)
        assert sending.is_alive(), "it is to be killed while events come"
        kill(processes, first)
        processes.start("third", "services.worker", "fraud")
        sending.join(60)
        assert within(90, lambda: len(score_ids(kafka_server)) == COUNT), scored(kafka_server)
        processes.stop()  # the last checkpoints
    assert kept_states(url) == expected(events)


def kill(processes: Processes, process: Process) -> None:
    """Kill a worker as an operating system would."""
    process.signal(signal.SIGKILL)
    process.popen.wait()
    processes.all.remove(process)


def send(kafka: str, events: list[Transaction]) -> None:
    """Send events as a live producer does: keyed, without watermarks, for some ten seconds."""
    never = threading.Event()
    with Producer(kafka, linger_ms=5) as producer:
        for number, event in enumerate(events):
            if number % 200 == 0:
                never.wait(0.1)
            producer.send(TOPICS.events.name, encode(event), key=event.customer_id.encode())


def scored(kafka: str) -> int:
    """Return how many scores there are, repeated ones included."""
    return record_counts(kafka, [TOPICS.scores])[TOPICS.scores.name]


def score_ids(kafka: str) -> set[str]:
    """Return the events that have a score."""
    if scored(kafka) < COUNT:
        return set()
    consumer = KafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest")
    try:
        partitions = [TopicPartition(TOPICS.scores.name, number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        ids: set[str] = set()
        while any(consumer.position(tp) < ends[tp] for tp in partitions):
            for records in consumer.poll(timeout_ms=500).values():
                ids.update(json.loads(record.value)["event_id"] for record in records)
        return ids
    finally:
        consumer.close()


def expected(events: list[Transaction]) -> dict[tuple[str, bytes], bytes]:
    """Return the states of an uninterrupted fold."""
    pipeline = Pipeline(FRAUD.features)
    keys = {
        "customer": [event.customer_id.encode() for event in events],
        "terminal": [event.terminal_id.encode() for event in events],
    }
    none = Labels([], np.array([], np.int64), {"customer": [], "terminal": []}, np.array([]))
    pipeline.fold(
        Events(
            [event.event_id.encode() for event in events],
            np.array([event.event_time for event in events]),
            keys,
            np.array([[event.amount] for event in events]),
        ),
        none,
    )
    return {(table.stage.entity, key): state for table in pipeline.tables for key, state in table.states().items()}


def test_a_static_member_that_comes_back_in_time_is_waited_for(
    kafka_server: str, valkey_server: str, tmp_path: Path
) -> None:
    """Killed and started again within its session it has its partitions at once, long before that session ends."""
    url = valkey_server.removesuffix("/0") + "/7"
    Redis.from_url(url).flushdb()
    environment = {
        "HEADRACE_KAFKA": kafka_server,
        "HEADRACE_REDIS": url,
        "HEADRACE_MODEL_KEY": "k" * 32,
        "HEADRACE_PARTITIONS": str(PARTITIONS),
        "HEADRACE_SESSION_SECONDS": "120",
        "HEADRACE_INSTANCE": "worker-0",
    }
    events = payments()[:400]
    with created(kafka_server, TOPICS), Processes(tmp_path, environment) as processes:
        first = processes.start("first", "services.worker", "fraud")
        processes.wait_ready(60)
        send(kafka_server, events[:200])
        assert within(30, lambda: scored(kafka_server) == 200)
        kill(processes, first)
        processes.start("again", "services.worker", "fraud")
        send(kafka_server, events[200:])
        assert within(45, lambda: scored(kafka_server) >= 400)
    # It has not left the group, which shall not miss it for two minutes.
    member = MemberToRemove(group_instance_id="worker-0")
    removed = asked(kafka_server, lambda admin: admin.remove_group_members("fraud-stages", [member]))
    assert list(removed.values()) == [NoError]
