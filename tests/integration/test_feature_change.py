"""A changed feature set is started beside the running one, catches up from Kafka, and takes over under load.

Both read the same events and labels. What the new one makes of them is compared with one fold of its own
declaration over all of them.
"""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from redis import Redis

from infra.processes import Processes
from schemas.codec import encode
from schemas.events import Label, Transaction
from schemas.topics import Topics
from services.backfill.__main__ import main as backfill
from services.switchover.__main__ import main as switchover
from streams.features.pipeline import Events, Labels, Pipeline
from streams.features.spec import Over
from streams.runtime.deployment import DeploymentRefused, refuse_misfit
from streams.runtime.partitioner import partition_of
from streams.runtime.producer import Producer
from streams.runtime.records import Spans
from streams.runtime.topics import record_counts
from streams.usecases import FRAUD, USECASES
from tests.local import created, kept_states, records, within
from tests.wider import WIDER

pytestmark = pytest.mark.timeout(300)

PARTITIONS, NAME = 2, "v2"
OLD, NEW = FRAUD, WIDER.deployed(NAME, publishing=True)
TOPICS, BESIDE = OLD.topics(PARTITIONS), NEW.topics(PARTITIONS)
START, STEP, RATE = 19_700 * 86_400_000, 60_000, 100  # ms, ms between two events, events a second
BEFORE = 1_000
"""Events that are there before the new deployment is."""

CUSTOMERS = 40
FIELDS = ("event_id", "event_time", "customer_id", "terminal_id", "amount")


@dataclass
class Traffic:
    """Payments a minute of stream time apart, every fifth with a label an hour later, sent on and on."""

    kafka: str
    sent: list[Transaction] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def send(self, count: int) -> None:
        """Send so many at once."""
        with Producer(self.kafka, linger_ms=5) as producer:
            for _ in range(count):
                self._send_one(producer)

    def __enter__(self) -> "Traffic":
        self._thread = threading.Thread(target=self._go_on)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _go_on(self) -> None:
        with Producer(self.kafka, linger_ms=5) as producer:
            while not self._stop.wait(1 / RATE):
                self._send_one(producer)

    def _send_one(self, producer: Producer) -> None:
        number = len(self.sent)
        event = payment(number)
        producer.send(TOPICS.events.name, encode(event), key=event.customer_id.encode())
        self.sent.append(event)
        if number % 5 == 0:
            label = Label(event.event_id, event.event_time + 60 * STEP, number // 5 % 2)
            producer.send(TOPICS.labels.name, encode(label), key=event.event_id.encode())
            self.labels.append(label)


def payment(number: int) -> Transaction:
    """A payment; the customers of a terminal are all in one partition, so its events have one order."""
    customer = f"c{number * 7 % CUSTOMERS}"
    partition = int(partition_of(Spans.of([customer.encode()]), PARTITIONS)[0])
    return Transaction(f"e{number}", START + number * STEP, customer, f"t{partition}-{number % 9}", 1 + number % 50 / 4)


@pytest.fixture
def environment(kafka_server: str, valkey_server: str, cassandra_server: str) -> Iterator[dict[str, str]]:
    """Empty topics, an empty Redis and an empty keyspace."""
    url = valkey_server.removesuffix("/0") + "/9"
    Redis.from_url(url).flushdb()
    with created(kafka_server, cast(Topics, list({topic.name: topic for topic in (*TOPICS, *BESIDE)}.values()))):
        yield {
            "HEADRACE_KAFKA": kafka_server,
            "HEADRACE_REDIS": url,
            "HEADRACE_CASSANDRA": cassandra_server,
            "HEADRACE_KEYSPACE": f"k{uuid4().hex[:12]}",
            "HEADRACE_MODEL_KEY": "k" * 32,
            "HEADRACE_PARTITIONS": str(PARTITIONS),
            "HEADRACE_SESSION_SECONDS": "3",
            "HEADRACE_CHECKPOINT_SECONDS": "0.2",
        }


def test_a_changed_feature_set_takes_over_and_nothing_is_lost(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started beside the old one it scores every event since the first, exactly; then it publishes, the switch-over
    says when the old one may go, and from the first event to the last each has a public score, at most one of each
    feature set."""
    kafka = environment["HEADRACE_KAFKA"]
    traffic = Traffic(kafka)
    traffic.send(BEFORE)
    beside = {"HEADRACE_DEPLOYMENT": NAME}
    for name, value in (environment | beside).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(USECASES, "fraud", WIDER)
    with pytest.raises(DeploymentRefused, match="HEADRACE_PUBLISH"):
        refuse_misfit(kafka, NEW, BESIDE)  # it would publish what is long past
    with ThreadPoolExecutor(1) as thread, Processes(tmp_path, environment) as processes, traffic:
        old = processes.start("old", "services.worker", "fraud", environment={"HEADRACE_DEPLOYMENT": ""})
        shadow = processes.start("shadow", "tests.wider", "services.worker", "fraud", environment=beside)
        processes.start("history", "tests.wider", "services.history", "fraud", environment=beside)
        processes.wait_ready(60)
        assert within(60, lambda: min(scored(kafka, one) for one in (TOPICS, BESIDE)) > BEFORE)
        assert {score["feature_set"] for score in scores(kafka, TOPICS)} == {OLD.features.fingerprint}

        with pytest.raises(DeploymentRefused, match="HEADRACE_DEPLOYMENT"):
            refuse_misfit(kafka, WIDER, TOPICS)  # a worker of the new one without a name

        assert switchover(["fraud", "--timeout", "1"]) == 1, "nobody publishes yet"

        publishing = beside | {"HEADRACE_PUBLISH": "yes"}
        waiting = thread.submit(switchover, ["fraud", "--timeout", "50"])
        processes.start("publishing", "tests.wider", "services.worker", "fraud", environment=publishing)
        processes.stop(shadow)
        assert waiting.result(60) == 0, "the old one could be stopped"
        processes.stop(old)
        alone = len(traffic.sent)
        assert within(30, lambda: len(traffic.sent) > alone + RATE)
        traffic.__exit__()
        ids = {event.event_id for event in traffic.sent}
        assert within(60, lambda: scored(kafka, BESIDE) >= len(ids))
        oracle, states = expected(traffic)
        assert within(30, lambda: kept_states(environment["HEADRACE_REDIS"], NEW.full_name) == states)
        processes.stop()
    ours = scores(kafka, BESIDE)
    assert {score["event_id"] for score in ours} == ids
    exact(ours, oracle)
    public = scores(kafka, TOPICS)
    assert {score["event_id"] for score in public} == ids
    times = Counter((score["event_id"], score["feature_set"]) for score in public)
    assert set(times.values()) == {1}
    by_new = {score["event_id"] for score in public if score["feature_set"] == NEW.features.fingerprint}
    assert {event.event_id for event in traffic.sent[alone:]} <= by_new
    assert record_counts(kafka, [TOPICS.dlq, BESIDE.dlq]) == {TOPICS.dlq.name: 0, BESIDE.dlq.name: 0}


def test_a_deployment_goes_on_from_a_file_and_what_kafka_has(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Backfilled from a file that overlaps with the log it has each event once, each label once, and scores only what
    comes then; backfilled it is not backfilled again."""
    kafka, traffic = environment["HEADRACE_KAFKA"], Traffic(environment["HEADRACE_KAFKA"])
    events = [payment(number) for number in range(400)]
    written = {name: [getattr(event, name) for event in events] for name in FIELDS}
    pq.write_table(pa.table(written | {"label": [number % 2 for number in range(400)]}), tmp_path / "old.parquet")
    traffic.sent = events[:300]  # the log begins with the 300th and has a hundred of the file
    traffic.send(300)
    told = {label.event_id for label in traffic.labels}
    traffic.labels += [
        Label(event.event_id, event.event_time + 60 * STEP, number % 2)
        for number, event in enumerate(events)
        if event.event_id not in told
    ]
    beside = {"HEADRACE_DEPLOYMENT": NAME}
    for name, value in (environment | beside).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(USECASES, "fraud", WIDER)
    arguments = ["fraud", "--input", str(tmp_path / "old.parquet"), "--label-delay", "1h"]
    assert backfill(arguments) == 0
    assert backfill(arguments) == 1, "it is there already"
    known, labels = len(traffic.sent), list(traffic.labels)
    with Processes(tmp_path / "logs", environment) as processes:
        processes.start("worker", "tests.wider", "services.worker", "fraud", environment=beside)
        traffic.send(100)
        traffic.labels = labels  # nobody joins the new ones here
        processes.wait_ready(60)
        oracle, states = expected(traffic)
        assert within(60, lambda: kept_states(environment["HEADRACE_REDIS"], NEW.full_name) == states)
        found = scores(kafka, BESIDE)
        assert {score["event_id"] for score in found} == {event.event_id for event in traffic.sent[known:]}
        assert {score["model_id"] for score in found} == {f"{NEW.recipes[0]}@{len(labels)}"}
        exact(found, oracle)


def scored(kafka: str, topics: Topics) -> int:
    """How many scores a deployment has made."""
    return record_counts(kafka, [topics.scores])[topics.scores.name]


def scores(kafka: str, topics: Topics) -> list[dict[str, Any]]:
    """All scores of a deployment."""
    return [json.loads(record.value) for record in records(kafka, topics.scores.name)]


def exact(found: list[dict[str, Any]], oracle: dict[str, dict[str, float]]) -> None:
    """Hold every feature of every score to the oracle's, but those of labels: these come as fast as they come."""
    for score in found:
        features = {name: value for name, value in score["features"].items() if name in oracle[score["event_id"]]}
        assert features == oracle[score["event_id"]]


def expected(traffic: Traffic) -> tuple[dict[str, dict[str, float]], dict[tuple[str, bytes], bytes]]:
    """Features by event, but those of labels, and all states, of one fold of the new declaration."""
    events, by_id = traffic.sent, {event.event_id: event for event in traffic.sent}
    labelled = [by_id[label.event_id] for label in traffic.labels]

    def keys(rows: list[Transaction]) -> dict[str, list[bytes]]:
        return {stage.entity: [getattr(row, stage.key).encode() for row in rows] for stage in NEW.features.stages}

    pipeline = Pipeline(NEW.features)
    vectors = pipeline.fold(
        Events(
            [event.event_id.encode() for event in events],
            np.array([event.event_time for event in events]),
            keys(events),
            np.array([[event.amount] for event in events]),
        ),
        Labels(
            [event.event_id.encode() for event in labelled],
            np.array([label.label_time for label in traffic.labels]),
            keys(labelled),
            np.array([float(label.label) for label in traffic.labels]),
        ),
    )
    views = (view for stage in NEW.features.stages for view in stage.views if view.over is Over.LABELS)
    of_labels = {feature.name for view in views for feature in view.features}
    features = {
        event.event_id: {
            name: value
            for name, value in zip(NEW.features.names, vector.tolist(), strict=True)
            if name not in of_labels
        }
        for event, vector in zip(events, vectors, strict=True)
    }
    states = {(table.stage.entity, key): state for table in pipeline.tables for key, state in table.states().items()}
    return features, states
