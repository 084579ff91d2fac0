"""A running worker follows models, aliases and lists: what is changed is in effect within a second, no restart."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import msgspec
import pytest
from kafka import KafkaConsumer, TopicPartition

from infra.processes import Processes
from schemas.codec import encode
from schemas.events import AliasChange, Score
from services.lists.__main__ import main as lists
from streams.models.lessons import Lessons
from streams.runtime.producer import Producer
from streams.usecases import FRAUD
from tests.local import created

KEY = "k" * 32
TOPICS = FRAUD.topics(1)
NAMES, FEATURE_SET = FRAUD.features.names, FRAUD.features.fingerprint
PROMISED = 5.0  # seconds until a change is in effect; nearly always it is less than one
PATIENCE = 60.0

_decode = msgspec.json.Decoder(Score).decode


class Pipeline:
    """A worker on empty topics, asked one payment at a time."""

    def __init__(self, kafka: str) -> None:
        self._producer = Producer(kafka, linger_ms=0)
        self._scores = KafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False)
        place = TopicPartition(TOPICS.scores.name, 0)
        self._scores.assign([place])
        self._scores.seek_to_beginning(place)
        self._sent = 0

    def send(self, topic: str, key: bytes, message: msgspec.Struct) -> None:
        self._producer.send(topic, encode(message), key)
        self._producer.flush()

    def score(self) -> Score:
        """Send a payment of the customer c1 at the terminal t1, and return its score."""
        self._sent += 1
        ids = {"event_id": f"e{self._sent}", "customer_id": "c1", "terminal_id": "t1"}
        event = {**ids, "event_time": int(time.time() * 1000), "amount": 20.0}
        self._producer.send(TOPICS.events.name, encode(event), b"c1")
        self._producer.flush()
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for records in self._scores.poll(200).values():
                for record in records:
                    if (score := _decode(record.value)).event_id == ids["event_id"]:
                        return score
        raise AssertionError(f"{ids['event_id']} is not scored")

    def until(self, what: str, value: object) -> Score:
        """Score payments until a field of a score is so; fail where that takes longer than is promised."""
        begin = time.monotonic()
        while getattr(score := self.score(), what) != value:
            assert time.monotonic() - begin < PROMISED, f"{what} is still {getattr(score, what)!r}, not {value!r}"
        return score


@pytest.fixture
def kafka(kafka_server: str) -> Iterator[str]:
    """A Kafka with the use case's topics, all empty."""
    with created(kafka_server, TOPICS):
        yield kafka_server


def test_changes_are_in_effect_within_a_second(
    kafka: str, valkey_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """New models, another champion, a pin and its end, a refused pin, a blocked customer: each in the next scores."""
    settings = {
        "HEADRACE_KAFKA": kafka, "HEADRACE_REDIS": valkey_server, "HEADRACE_MODEL_KEY": KEY,
        "HEADRACE_PARTITIONS": "1", "HEADRACE_SESSION_SECONDS": "3",
    }  # fmt: skip
    monkeypatch.setenv("HEADRACE_KAFKA", kafka)
    first, *others = FRAUD.recipes
    lessons = Lessons(FRAUD.recipes, NAMES, FEATURE_SET)

    def announce(learnt: int, key: bytes = KEY.encode()) -> None:
        for learner in lessons.learners.values():
            learner.examples_learnt = learnt
        pipeline.send(TOPICS.models.name, b"fraud", lessons.announce(int(time.time() * 1000), key))

    def promote(recipe: str, learnt: int | None = None, key: bytes = KEY.encode()) -> None:
        model = None
        if learnt is not None:
            alone = Lessons((recipe,), NAMES, FEATURE_SET)
            alone.learners[recipe].examples_learnt = learnt
            (model,) = alone.announce(1, key).models
        change = AliasChange("champion", recipe, "operator", "a test", 1, model)
        pipeline.send(TOPICS.aliases.name, b"champion", change)

    with Processes(tmp_path, settings) as processes:
        worker = processes.start("worker", "services.worker", "fraud")
        processes.wait_ready(PATIENCE)
        pipeline = Pipeline(kafka)
        assert pipeline.score().model_id == f"{first}@0"
        announce(10)
        score = pipeline.until("model_id", f"{first}@10")
        assert (score.shadow.keys(), score.policy) == ({*others}, FRAUD.policy.version)
        for recipe in others[:1]:
            promote(recipe)
            assert pipeline.until("model_id", f"{recipe}@10").shadow.keys() == {*FRAUD.recipes} - {recipe}
        promote(first, learnt=3)
        pipeline.until("model_id", f"{first}@3")
        announce(20)
        announce(30, key=b"x" * 32)  # refused, and so is a pin by another key
        promote(first, learnt=2, key=b"x" * 32)
        promote("stranger")
        lists(["fraud", "add", "block", "customer", "c1", "c2", "--reason", "a test"])
        assert pipeline.until("rule", "block customer").decision == "decline"
        assert pipeline.score().model_id == f"{first}@3"
        lists(["fraud", "add", "allow", "terminal", "t1"])
        lists(["fraud", "remove", "customer", "c1"])
        assert pipeline.until("rule", "allow terminal").decision == "approve"
        promote(first)
        pipeline.until("model_id", f"{first}@20")

        capsys.readouterr()
        lists(["fraud", "show", "--json"])
        shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [(one["list"], one["entity"], one["id"]) for one in shown] == [
            ("allow", "terminal", "t1"), ("block", "customer", "c2"),
        ]  # fmt: skip
        metrics = urlopen(str(worker.metrics), timeout=10).read().decode()
        refused = len(FRAUD.recipes) + 2
        assert f"headrace_models_refused_total {refused}.0" in metrics
        assert "headrace_listed_entities 2.0" in metrics
        assert 'headrace_scores_not_finite_total{alias="champion"} 0.0' in metrics

        # Who starts anew finds all that as it stands.
        processes.stop(worker)
        processes.start("again", "services.worker", "fraud")
        processes.wait_ready(PATIENCE)
        score = pipeline.score()
        assert (score.model_id, score.rule) == (f"{first}@20", "allow terminal")
