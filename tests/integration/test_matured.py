"""Labels as they come in earnest: frauds alone are reported, everything else is assumed, and some of it wrongly."""

import json
import re
import signal
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen
from uuid import uuid4

import msgspec
import pytest
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import CommitFailedError

from infra.processes import Process, Processes
from schemas.codec import encode
from schemas.events import Example, Label, Score
from streams.runtime.producer import Producer
from streams.usecases import FRAUD
from tests.local import created, records, within

pytestmark = pytest.mark.timeout(240)

PARTITIONS = 2
TOPICS = FRAUD.topics(PARTITIONS)
COUNT, HALF, LAST_DUE = 3000, 1500, 2399
SECOND, HORIZON = 1000, 600_000
BEGIN = int(time.time() * 1000) - 2 * COUNT * SECOND
PATIENCE = 40.0


def score(number: int) -> Score:
    time_ = BEGIN + number * SECOND
    keys = {"customer": f"c{number % 7}", "terminal": f"t{number % 11}"}
    return Score(f"e{number}", time_, keys, {"amount": 1.0}, 0.5, "approve", "m@1", "00ff", time_, time_ + 5)


def send_scores(kafka: str, numbers: Iterable[int]) -> None:
    with Producer(kafka, linger_ms=5) as producer:
        for number in numbers:
            one = score(number)
            producer.send(TOPICS.scores.name, encode(one), one.entities["terminal"].encode())


def send_labels(kafka: str, labels: Iterable[Label]) -> None:
    with Producer(kafka, linger_ms=5) as producer:
        for label in labels:
            producer.send(TOPICS.labels.name, encode(label), label.event_id.encode())


def fraud(number: int) -> Label:
    return Label(f"e{number}", BEGIN + number * SECOND + HORIZON // 2, 1)


def examples(kafka: str) -> list[Example]:
    return [msgspec.json.decode(one.value, type=Example) for one in records(kafka, TOPICS.examples.name)]


def shown(process: Process, metric: str) -> float:
    """What a process shows of itself."""
    with urlopen(str(process.metrics), timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(metric))


def count(history: Process, outcome: str) -> float:
    """What came of the labels."""
    return shown(history, f'headrace_labels_total{{outcome="{outcome}"}}')


def test_assumed_negatives_and_reported_frauds_are_learnt_once(
    kafka_server: str, cassandra_server: str, tmp_path: Path
) -> None:
    """Every event that is due makes one example, whichever label came first and though the matured process is killed
    in mid-way; a fraud that is reported too late, over HTTP, corrects what was assumed; what cannot be is refused."""
    frauds, late = set(range(0, COUNT, 10)), {5, 777, 1605}
    settings = {
        "HEADRACE_KAFKA": kafka_server,
        "HEADRACE_CASSANDRA": cassandra_server,
        "HEADRACE_KEYSPACE": f"k{uuid4().hex[:12]}",
        "HEADRACE_PARTITIONS": str(PARTITIONS),
        "HEADRACE_SESSION_SECONDS": "6",
        "HEADRACE_LABEL_WAIT_SECONDS": "2",
        "HEADRACE_FEEDBACK_PORT": "0",
        "HEADRACE_LABEL_HORIZON_SECONDS": str(HORIZON / 1000),
    }
    with created(kafka_server, TOPICS), Processes(tmp_path, settings) as processes:
        history = processes.start("history", "services.history", "fraud")
        first = processes.start("matured", "services.matured", "fraud")
        send_labels(kafka_server, map(fraud, sorted(frauds)))
        send_scores(kafka_server, range(HALF))
        processes.wait_ready(60)
        assert within(PATIENCE, lambda: first_labels(kafka_server) > 0)
        first.signal(signal.SIGKILL)
        processes.all.remove(first)
        send_scores(kafka_server, range(HALF, COUNT))
        second = processes.start("matured again", "services.matured", "fraud")
        feedback = processes.start("feedback", "services.feedback", "fraud")
        due = {f"e{number}" for number in range(LAST_DUE)}  # until the newest event is the horizon past them
        assert within(PATIENCE, lambda: due <= {one.event_id for one in examples(kafka_server)}), second.epitaph()

        reports = [msgspec.to_builtins(Label(f"e{number}", BEGIN, 1)) for number in sorted(late)]
        unknown = {"event_id": "nobody", "label_time": BEGIN, "label": 1}
        impossible = [unknown | {"label": 2}, unknown | {"label_time": 2 * BEGIN}]
        status, answer = post(feedback, [*reports, unknown, *impossible])
        assert (status, answer["accepted"]) == (202, len(late) + 1)
        assert [one["reason"] for one in answer["refused"]] == ["invalid", "future"]
        assert within(PATIENCE, lambda: count(history, "correction") == len(late))
        processes.wait_ready(10)
        learnt = examples(kafka_server)
        told = Counter((one.event_id, one.label, one.corrects) for one in learnt)
        expected = {(f"e{i}", int(i in frauds), None) for i in range(COUNT) if i in frauds or i <= LAST_DUE}
        expected |= {(f"e{i}", 1, 0) for i in late}
        assert told == dict.fromkeys(expected, 1)
        assert all(one.label_time == one.event_time + HORIZON for one in learnt if one.label == 0)
        assert count(history, "first") == len(expected) - len(late)
        assert count(history, "overruled") >= LAST_DUE // 10
        assert count(history, "stale") == 0
        # Those who wait for their horizon have caught up with all there is to do.
        assert within(PATIENCE, lambda: shown(second, "headrace_ready") == 1), second.epitaph()
        # The event may still come: only after the wait, and when the stages have passed all events, is it unknown.
        assert within(PATIENCE, lambda: passed(kafka_server) and len(records(kafka_server, TOPICS.dlq.name)) == 1)
        (letter,) = records(kafka_server, TOPICS.dlq.name)
        assert (letter.key, dict(letter.headers)["headrace-error"]) == (b"nobody", b"unknown_event")
        assert len(examples(kafka_server)) == len(learnt)


def first_labels(kafka: str) -> int:
    return sum(msgspec.json.decode(one.value, type=Label).assumed for one in records(kafka, TOPICS.labels.name))


def post(feedback: Process, labels: object) -> tuple[int, Any]:
    """Label as any system would that has heard of it."""
    assert within(PATIENCE, lambda: feedback.ready), feedback.epitaph()
    said = re.search(r"listening at (\S+)", feedback.log.read_text())
    assert said
    body = json.dumps(labels).encode()
    request = Request(said[1], body, {"Content-Type": "application/json"})
    with urlopen(request, timeout=10) as answer:
        return answer.status, json.load(answer)


def passed(kafka: str) -> bool:
    """Let the stages, which this test does without, have passed the events, of which there are none."""
    places = [TopicPartition(one.name, at) for one in (TOPICS.events, *TOPICS.hops) for at in range(PARTITIONS)]
    consumer = KafkaConsumer(bootstrap_servers=kafka, group_id="fraud-stages", enable_auto_commit=False)
    consumer.assign(places)
    try:
        consumer.commit({tp: OffsetAndMetadata(end, "", -1) for tp, end in consumer.end_offsets(places).items()})
    except CommitFailedError:  # Kafka still misses a worker that another test has killed
        return False
    finally:
        consumer.close()
    return True
