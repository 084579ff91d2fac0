"""A replay onto the live pipeline computes what the backtest computes, and its records are what was promised."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kafka import KafkaConsumer, TopicPartition

from infra.local import LocalServers
from infra.processes import ROOT, Processes
from schemas.events import WATERMARK_HEADER
from services.simulator.fraud import Simulation
from streams.runtime.topics import create_topics, record_counts
from streams.usecases import FRAUD

pytestmark = [pytest.mark.integration, pytest.mark.local, pytest.mark.timeout(300)]

DAYS, COUNT = 3, 6_000
MINUTE, DAY = 60_000, 86_400_000
START = 19_700 * DAY
TOPICS = FRAUD.topics(4)
KEY = {"HEADRACE_MODEL_KEY": "k" * 32}


@dataclass(frozen=True)
class Run:
    """A finished replay: the servers it ran on, the file, the events' scores as they were published, and all that
    the processes told."""

    servers: LocalServers
    file: Path
    scores: list[dict[str, Any]]
    told: str


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Replay a file of simulated payments onto two workers, labels half a day late."""
    folder = tmp_path_factory.mktemp("replay")
    file = payments(folder / "payments.parquet")
    with LocalServers(folder / "servers") as servers:
        create_topics(servers.kafka.address, TOPICS)
        with Processes(folder / "logs", servers.environment() | KEY | {"HEADRACE_METRICS_PORT": "0"}) as processes:
            for name in ("worker", "worker", "history"):
                processes.start(f"{name}{len(processes.all)}", f"services.{name}", "fraud")
            processes.wait_ready(90)
            assert replay(servers, file).wait(120) == 0
            deadline = time.monotonic() + 120
            while record_counts(servers.kafka.address, [TOPICS.scores])[TOPICS.scores.name] < COUNT:
                processes.check()
                assert time.monotonic() < deadline, "not every event was scored"
                time.sleep(0.2)
            scores = [json.loads(record.value) for record in records(servers, TOPICS.scores.name)]
        told = "".join(log.read_text() for log in (folder / "logs").iterdir())
        yield Run(servers, file, scores, told)


def payments(path: Path) -> Path:
    """Write payments whose times are whole minutes, so that many fall together."""
    simulation = Simulation(7, 100, 30, 1.2 * COUNT / (DAYS * DAY / 1000))
    block = simulation.block(START, START + DAYS * DAY)
    assert len(block) >= COUNT
    # Ids that sort otherwise than they come: ties are broken by id in one place and by order in another.
    ids = np.random.default_rng(7).permutation(COUNT)
    columns = {
        "event_id": [f"e{number}" for number in ids],
        "event_time": block.times[:COUNT] // MINUTE * MINUTE,
        "customer_id": block.customers[:COUNT],
        "terminal_id": block.terminals[:COUNT],
        "amount": block.amounts[:COUNT],
        "label": block.labels[:COUNT],
    }
    pq.write_table(pa.table(columns), path)
    return path


def replay(servers: LocalServers, file: Path, *options: str) -> "subprocess.Popen[bytes]":
    """Start a replay of `file`."""
    return subprocess.Popen(
        [sys.executable, "-m", "services.replay", "fraud", "--input", file, "--label-delay", "12h", *options],
        cwd=ROOT,
        env={**os.environ, **servers.environment()},
    )


def records(servers: LocalServers, topic: str, since: dict[int, int] | None = None) -> list[Any]:
    """Return every record of a topic (from the offsets `since`), partition by partition in order."""
    consumer = KafkaConsumer(bootstrap_servers=servers.kafka.address, auto_offset_reset="earliest")
    try:
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic))]
        consumer.assign(partitions)
        for tp in partitions:
            consumer.seek(tp, (since or {}).get(tp.partition, 0))
        ends = consumer.end_offsets(partitions)
        found: list[Any] = []
        deadline = time.monotonic() + 30
        while any(consumer.position(tp) < ends[tp] for tp in partitions):
            assert time.monotonic() < deadline
            for polled in consumer.poll(timeout_ms=500).values():
                found.extend(polled)
    finally:
        consumer.close()
    return sorted(found, key=lambda record: (record.partition, record.offset))


def test_a_replay_computes_what_the_backtest_computes(run: Run, tmp_path: Path) -> None:
    """With two workers, ties and late labels, every feature of every event is the backtest's, bit for bit."""
    output = tmp_path / "scores.parquet"
    backtest = [sys.executable, "-m", "services.backtest", "fraud", "--input", run.file, "--output", output]
    subprocess.run([*backtest, "--label-delay", "12h"], check=True, cwd=ROOT, timeout=120)
    expected = {row["event_id"]: row for row in pq.read_table(output).to_pylist()}
    live = {score["event_id"]: score["features"] for score in run.scores}
    assert live.keys() == expected.keys()
    assert len(run.scores) == COUNT
    differing = Counter(
        name
        for event_id, features in live.items()
        for name in FRAUD.features.names
        if features[name] != expected[event_id][name]
    )
    assert not differing
    # The labels did reach the terminals.
    assert sum(features["terminal_fraud_rate_1d"] > 0 for features in live.values()) > COUNT / 20


def test_nobody_complains_when_all_is_well(run: Run) -> None:
    """On a Kafka that has just been made, with a worker that joins another: no warning, no error."""
    lines = run.told.splitlines()
    assert any("ready" in line for line in lines)
    assert not [line for line in lines if " WARNING " in line or " ERROR " in line]


def test_promises_hold_in_every_partition(run: Run) -> None:
    """Each partition begins with a promise, keeps each, and ends with its end; each event is there once."""
    for topic, time_of in ((TOPICS.events, "event_time"), (TOPICS.labels, "label_time")):
        names = []
        found = records(run.servers, topic.name)
        for partition in range(topic.partitions):
            own = [record for record in found if record.partition == partition]
            assert own[0].key is None
            assert json.loads(own[-1].value) == {"watermark": None}
            promised = -1
            for record in own[:-1]:
                value = json.loads(record.value)
                if record.key is None:
                    assert list(record.headers) == [(WATERMARK_HEADER, b"1")]
                    assert value["watermark"] >= promised
                    promised = value["watermark"]
                else:
                    assert value[time_of] >= promised
                    names.append(value["event_id"])
        assert len(names) == len(set(names)) == COUNT


def test_an_interrupted_replay_ends_its_promises(run: Run) -> None:
    """After Ctrl-C the exit code is 130 and the last record of every partition takes the promise back."""
    topics = (TOPICS.events.name, TOPICS.labels.name)
    before = {name: record_ends(run.servers, name) for name in topics}
    process = replay(run.servers, run.file, "--speed", "10000")
    deadline = time.monotonic() + 60
    while sum(record_ends(run.servers, topics[0]).values()) < sum(before[topics[0]].values()) + 50:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    for name in topics:
        new = records(run.servers, name, before[name])
        last = {record.partition: record for record in new}
        assert len(last) == TOPICS.events.partitions
        assert all(json.loads(record.value) == {"watermark": None} for record in last.values())
        assert len(new) < COUNT


def record_ends(servers: LocalServers, topic: str) -> dict[int, int]:
    """Return the next offset of each partition."""
    consumer = KafkaConsumer(bootstrap_servers=servers.kafka.address)
    try:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
        return {tp.partition: end for tp, end in consumer.end_offsets(partitions).items()}
    finally:
        consumer.close()
