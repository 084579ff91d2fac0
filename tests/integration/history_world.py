"""The history process and what is around it: topics, a keyspace, and the messages that tests send and expect."""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.request import urlopen
from uuid import uuid4

import msgspec
from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition

from infra.local.ports import free_port
from schemas.codec import encode
from schemas.events import Example, Label, ModelAnnouncement, ModelSnapshot, Score
from streams.runtime.hop import HopFormat, HopRows
from streams.runtime.records import Records
from streams.stores.cassandra import CassandraHistory
from streams.stores.registry_cassandra import CassandraRegistry
from streams.usecases import FRAUD
from tests.local import PATIENCE, answered, created, records

T = TypeVar("T")
Message = tuple[str, int, bytes | None, bytes | None, list[tuple[str, bytes]]]
ROOT = Path(__file__).parents[2]
PARTITIONS = 2
TOPICS = FRAUD.topics(PARTITIONS)
(HOP,) = TOPICS.hops
GROUP = "fraud-history"
NOW = int(time.time() * 1000)


class World:
    """Empty topics and an empty keyspace, and history processes as their users start them."""

    def __init__(self, kafka: str, cassandra: str, folder: Path) -> None:
        self.kafka, self.cassandra = kafka, cassandra
        self.keyspace = f"k{uuid4().hex[:12]}"
        self._folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.metrics_port = 0

    def start(self, **settings: str) -> subprocess.Popen[bytes]:
        self.metrics_port = free_port()
        environment = {
            "HEADRACE_KAFKA": self.kafka,
            "HEADRACE_CASSANDRA": self.cassandra,
            "HEADRACE_KEYSPACE": self.keyspace,
            "HEADRACE_PARTITIONS": str(PARTITIONS),
            "HEADRACE_SESSION_SECONDS": "6",
            "HEADRACE_LABEL_WAIT_SECONDS": "2",
            "HEADRACE_METRICS_PORT": str(self.metrics_port),
        }
        with self._log(len(self.processes)).open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "services.history", "fraud"],
                cwd=ROOT,
                stderr=log,
                env=os.environ | environment | settings,
            )
        self.processes.append(process)
        return process

    def said(self, number: int = -1) -> str:
        return self._log(range(len(self.processes))[number]).read_text()

    def share(self, number: int) -> int | None:
        """How many partitions a process has, once it has said so."""
        said = re.findall(r"ready, with (\d+)", self.said(number))
        return int(said[-1]) if said else None

    def metric(self, line: str) -> float:
        with urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(one.rsplit(" ", 1)[1]) for one in lines if one.startswith(line))

    def unready(self) -> list[str]:
        """Why the process is not ready; nothing if it is."""
        try:
            with urlopen(f"http://127.0.0.1:{self.metrics_port}/readyz", timeout=5) as answer:
                content = json.load(answer)
        except HTTPError as error:
            content = json.load(error)
        reasons: list[str] = content["reasons"]
        return reasons

    def send(self, *messages: Message) -> None:
        producer = KafkaProducer(bootstrap_servers=self.kafka, acks="all", max_request_size=4_000_000)
        sent = [
            producer.send(topic, value=value, key=key, headers=headers, partition=partition)
            for topic, partition, key, value, headers in messages
        ]
        for one in sent:
            one.get(timeout=PATIENCE)
        producer.close()

    def records(self, topic: str) -> list[Any]:
        """Every record of a topic."""
        return records(self.kafka, topic)

    def lag(self) -> int:
        """Records of scores and labels that are not committed."""
        names = (TOPICS.scores.name, TOPICS.labels.name)
        partitions = [TopicPartition(name, number) for name in names for number in range(PARTITIONS)]
        consumer = KafkaConsumer(bootstrap_servers=self.kafka, group_id=GROUP, enable_auto_commit=False)
        ends, done = consumer.end_offsets(partitions), {tp: consumer.committed(tp) or 0 for tp in partitions}
        consumer.close()
        return sum(max(end - done[tp], 0) for tp, end in ends.items())

    def done(self) -> bool:
        """Let the stages, which these tests do without, have passed what there is; say whether history has."""
        places = [TopicPartition(one.name, at) for one in (TOPICS.events, HOP) for at in range(PARTITIONS)]
        consumer = KafkaConsumer(bootstrap_servers=self.kafka, group_id="fraud-stages", enable_auto_commit=False)
        consumer.assign(places)
        consumer.commit({tp: OffsetAndMetadata(end, "", -1) for tp, end in consumer.end_offsets(places).items()})
        consumer.close()
        return self.lag() == 0

    def ask(self, question: Callable[[CassandraHistory], Awaitable[T]]) -> T:
        async def asked() -> T:
            store = CassandraHistory(self.cassandra, self.keyspace, "fraud")
            await store.start()
            try:
                return await question(store)
            finally:
                await store.close()

        return answered(PATIENCE, lambda: asyncio.run(asyncio.wait_for(asked(), PATIENCE)))

    def _log(self, number: int) -> Path:
        return self._folder / f"history-{number}.log"


@contextmanager
def running(world: World) -> Iterator[World]:
    """The topics of a world inside the block, and no process of it after."""
    with created(world.kafka, TOPICS):
        try:
            yield world
        finally:
            for process in world.processes:
                process.terminate()  # whoever leaves the group like this is not waited for in the next test
            for process in world.processes:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(20)
                process.kill()
                process.wait()


def score(number: int) -> Score:
    features = {name: number + i / 7 for i, name in enumerate(FRAUD.features.names)}
    keys = {"customer": f"c{number % 7}", "terminal": f"t{number % 11}"}
    fingerprint = FRAUD.features.fingerprint
    time_ = NOW - 1_000_000 + number
    return Score(f"e{number}", time_, keys, features, number / 1e6, "accept", "logistic@1", fingerprint, time_, NOW)


def label(number: int) -> Label:
    return Label(f"e{number}", NOW - 500_000 + number, 1 if number % 3 == 0 else 0)


def score_message(one: Score, partition: int) -> Message:
    return TOPICS.scores.name, partition, one.event_id.encode(), encode(one), []


def label_message(one: Label, partition: int) -> Message:
    return TOPICS.labels.name, partition, one.event_id.encode(), encode(one), []


def examples(world: World) -> list[Example]:
    return [msgspec.json.decode(record.value, type=Example) for record in world.records(TOPICS.examples.name)]


def hop_rows(world: World) -> dict[int, HopRows]:
    """The rows of each partition of the hop topic."""
    format_ = HopFormat(FRAUD.features, 1)
    rows: dict[int, HopRows] = {}
    records = world.records(HOP.name)
    for partition in range(PARTITIONS):
        of = [record for record in records if record.partition == partition]
        packed = Records.of([r.key for r in of], [r.value for r in of], [r.offset for r in of], [0] * len(of))
        rows[partition], damaged = format_.decode(packed)
        assert not len(damaged)
    return rows


def announcement() -> ModelAnnouncement:
    snapshot = ModelSnapshot("logistic@7", "logistic", FRAUD.features.fingerprint, {0: 7}, 7, NOW, None, {}, b"state")
    return ModelAnnouncement(NOW, FRAUD.features.fingerprint, {0: 7}, [snapshot], b"course")


def kept_models(world: World) -> list[str]:
    """The models in the registry by name."""

    async def names() -> list[str]:
        registry = CassandraRegistry(world.cassandra, world.keyspace, "fraud", lambda _: None)
        await registry.start()
        try:
            return [row.model_id async for row in registry.newest(NOW)]
        finally:
            await registry.close()

    return answered(PATIENCE, lambda: asyncio.run(names()))
