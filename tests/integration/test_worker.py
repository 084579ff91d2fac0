"""The processes of a use case at their start, and a worker whose Redis is away for a while."""

import asyncio
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from infra.processes import Process, Processes
from schemas.codec import encode
from schemas.topics import DAY_MS
from streams.runtime.gate import Gate
from streams.runtime.producer import Producer
from streams.stores.redis import RedisStateStore
from streams.stores.state import Checkpoint
from streams.usecases import FRAUD
from tests.engines import Engine, ValkeyServer
from tests.local import created, records, within

PARTITIONS = 2
TOPICS = FRAUD.topics(PARTITIONS)
SETTINGS = {
    "HEADRACE_MODEL_KEY": "k" * 32,
    "HEADRACE_PARTITIONS": str(PARTITIONS),
    "HEADRACE_SESSION_SECONDS": "3",
    "HEADRACE_CHECKPOINT_SECONDS": "0.1",
}
PATIENCE = 60.0  # seconds


@pytest.fixture
def kafka(kafka_server: str) -> Iterator[str]:
    """A Kafka with the use case's topics, all empty."""
    with created(kafka_server, TOPICS):
        yield kafka_server


def complaints(log: Path) -> list[str]:
    """The lines of a process's log that are not its progress."""
    lines = log.read_text().splitlines()
    return [line for line in lines if not re.match(r"metrics: |\S+ \S+ INFO ", line)]


@pytest.mark.parametrize("service", ["worker", "history", "learner"])
def test_another_partition_count_is_refused_at_the_start(kafka: str, tmp_path: Path, service: str) -> None:
    """Settings that do not fit the topics would put entities where nobody looks: one line, exit 1."""
    settings = SETTINGS | {"HEADRACE_KAFKA": kafka, "HEADRACE_PARTITIONS": "3"}
    with Processes(tmp_path, settings) as processes:
        process = processes.start(service, f"services.{service}", "fraud")
        assert process.popen.wait(30) == 1
    (line,) = complaints(process.log)
    assert line.endswith(
        "topic fraud.transactions has 2 partitions, not 3: "
        "set HEADRACE_PARTITIONS to what the topics have, or start with empty topics"
    )


class World:
    """Empty topics, a Valkey that keeps its data over a stop, workers, and payments that each need new states."""

    def __init__(self, kafka: str, valkey: ValkeyServer, processes: Processes) -> None:
        self.kafka, self.valkey, self.processes = kafka, valkey, processes
        self.sent = self.started = 0

    def start(self) -> Process:
        """Start one more worker and wait until it owns something."""
        self.started += 1
        process = self.processes.start(f"worker{self.started}", "services.worker", "fraud")
        self.processes.wait_ready(PATIENCE)
        return process

    def restarted(self) -> Process:
        """A worker that goes on from another's checkpoint, so that it asks Valkey for every entity."""
        first = self.start()
        self.pay(100)
        assert self.all_scored()
        self.processes.stop(first)
        assert first.popen.returncode == 0, first.epitaph()
        return self.start()

    def pay(self, count: int) -> None:
        """Send payments, each of another customer at another terminal."""
        now = int(time.time() * 1000)
        with Producer(self.kafka, linger_ms=1) as producer:
            for number in range(self.sent, self.sent + count):
                ids = {"event_id": f"e{number}", "customer_id": f"c{number}", "terminal_id": f"t{number}"}
                value = encode({**ids, "event_time": now, "amount": 1.0})
                producer.send(TOPICS.events.name, value, key=ids["customer_id"].encode())
        self.sent += count

    def all_scored(self) -> bool:
        """Wait until every payment has been scored."""
        return within(PATIENCE, lambda: len({one.key for one in records(self.kafka, TOPICS.scores.name)}) == self.sent)


@pytest.fixture
def world(kafka: str, engine: Engine, tmp_path: Path) -> Iterator[World]:
    with engine.valkey(tmp_path / "valkey", save="3600 1") as valkey:
        settings = SETTINGS | {"HEADRACE_KAFKA": kafka, "HEADRACE_REDIS": valkey.url}
        with Processes(tmp_path / "logs", settings) as processes:
            yield World(kafka, valkey, processes)


def test_a_checkpoint_of_another_partition_count_is_refused(world: World) -> None:
    """The topics were made anew with other partitions, Redis was kept: one line, exit 1."""
    features = FRAUD.features
    name = f"fraud.terminal.{features.stages[1].fingerprint(features.lateness).hex()}.0"

    async def scenario() -> None:
        store = RedisStateStore(world.valkey.url, DAY_MS)
        epoch = (await store.claim(name)).epoch
        await store.save(name, epoch, Checkpoint(5, Gate(PARTITIONS + 1).marks().to_bytes()), [])
        await store.close()

    asyncio.run(scenario())
    worker = world.processes.start("worker", "services.worker", "fraud")
    assert worker.popen.wait(30) == 1
    (line,) = complaints(worker.log)
    assert f"ends: {name}: marks of 6 sources, not of 4: the partition count has changed" in line


def committed(kafka: str) -> tuple[dict[str, int], dict[str, int]]:
    """What lag tools see of the stages: how far the group is on each topic, and how long the topic is."""
    consumer = KafkaConsumer(bootstrap_servers=kafka, group_id="fraud-stages", enable_auto_commit=False)
    done, ends = {}, {}
    for topic in (TOPICS.events, *TOPICS.hops):
        partitions = [TopicPartition(topic.name, number) for number in range(PARTITIONS)]
        done[topic.name] = sum(consumer.committed(one) or 0 for one in partitions)
        ends[topic.name] = sum(consumer.end_offsets(partitions).values())
    consumer.close()
    return done, ends


def commit_one(kafka: str) -> None:
    """Leave the mark of a transaction at the end of an event topic's partition: an offset that no record has."""
    producer = KafkaProducer(bootstrap_servers=kafka, transactional_id="bank")
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(TOPICS.events.name, b"poison", partition=0)
    producer.commit_transaction()
    producer.close()


def test_lag_tools_see_how_far_the_stages_are(world: World) -> None:
    """What is kept in Redis is committed to Kafka too, while the worker runs: here it is all there is.

    The join asks the same, so that a label of no event is waited for no longer than there are events to come.
    """
    worker = world.start()
    world.pay(100)
    commit_one(world.kafka)
    assert world.all_scored()
    assert within(20, lambda: len(set(map(str, committed(world.kafka)))) == 1), committed(world.kafka)
    assert sum(committed(world.kafka)[0].values()) >= 200
    assert complaints(worker.log) == []


def waits(process: Process) -> bool:
    """Wait until a worker says that Redis is away, and go on living."""
    return within(PATIENCE, lambda: "trying again: Redis at" in process.log.read_text()) and process.alive


def test_a_partition_that_changes_hands_meanwhile_is_claimed_later(world: World) -> None:
    """A worker dies while Redis is away: the other takes its partitions over once Redis is back."""
    worker, other = world.restarted(), world.start()
    world.pay(100)
    assert world.all_scored()
    world.valkey.stop()
    world.pay(100)
    assert waits(worker), worker.epitaph()
    other.signal(signal.SIGKILL)
    other.popen.wait(10)
    assert not within(5, lambda: not worker.alive), worker.epitaph()  # the session of the other is over
    world.valkey.start()
    world.valkey.wait_healthy()
    assert world.all_scored(), worker.epitaph()
    assert all("trying again: Redis at" in line for line in complaints(worker.log))


def test_a_worker_that_is_stopped_does_not_wait_for_redis(world: World) -> None:
    """SIGTERM while Redis is away ends it soon, with the reason and without a traceback."""
    worker = world.restarted()
    world.valkey.stop()
    world.pay(10)
    assert waits(worker), worker.epitaph()
    worker.signal(signal.SIGTERM)
    assert worker.popen.wait(20) == 1
    waiting, last = complaints(worker.log)
    assert "trying again: Redis at" in waiting
    assert f"ends: Redis at {world.valkey.address} does not answer" in last
