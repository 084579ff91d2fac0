"""The registry and its tool on real servers: what a person decides, every scorer does within seconds."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from infra.processes import Processes
from schemas.codec import encode
from schemas.events import Example, ModelAnnouncement, Score
from services.models.__main__ import main
from streams.models.lessons import Lessons
from streams.runtime.producer import Producer
from streams.usecases import FRAUD
from tests.local import created, records, within

PARTITIONS = 2
DEPLOYMENT = "models"
USECASE = FRAUD.deployed(DEPLOYMENT)
TOPICS = USECASE.topics(PARTITIONS)
NAMES, OURS = FRAUD.features.names, FRAUD.features.fingerprint
RECIPE = FRAUD.recipes[0]
KEY = "k" * 32
PATIENCE = 60.0  # seconds
AT_ONCE = 5.0  # seconds within which every scorer is to follow


class Desk:
    """The tool as its users call it: `python -m services.models fraud …`."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def ask(self, *arguments: str) -> list[Any]:
        """What a command that works prints as JSON."""
        self._capsys.readouterr()
        code = main(["fraud", *arguments, "--json"])
        said = self._capsys.readouterr()
        assert code == 0, said.err
        return [json.loads(line) for line in said.out.splitlines()]

    def refused(self, *arguments: str) -> str:
        """The one line that a command says that does not work."""
        self._capsys.readouterr()
        assert main(["fraud", *arguments]) == 1
        (line,) = self._capsys.readouterr().err.splitlines()
        return line

    def listed(self) -> list[str]:
        """The models in the registry, as soon as there is a registry."""
        self._capsys.readouterr()
        code = main(["fraud", "list", "--json"])
        lines = self._capsys.readouterr().out.splitlines()
        return [json.loads(line)["model_id"] for line in lines] if code == 0 else []


@pytest.fixture
def settings(
    kafka_server: str, valkey_server: str, cassandra_server: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, str]]:
    """The settings of a deployment with empty topics, in the environment too."""
    settings = {
        "HEADRACE_KAFKA": kafka_server,
        "HEADRACE_REDIS": valkey_server,
        "HEADRACE_CASSANDRA": cassandra_server,
        "HEADRACE_KEYSPACE": "models",
        "HEADRACE_DEPLOYMENT": DEPLOYMENT,
        "HEADRACE_MODEL_KEY": KEY,
        "HEADRACE_PARTITIONS": str(PARTITIONS),
        "HEADRACE_SESSION_SECONDS": "3",
        "HEADRACE_CHECKPOINT_SECONDS": "0.1",
        "HEADRACE_SNAPSHOT_SECONDS": "0.2",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with created(kafka_server, TOPICS):
        yield settings


def examples(count: int) -> list[Example]:
    now = int(time.time() * 1000)
    rows = np.random.default_rng(7).normal(size=(count, len(NAMES))).tolist()
    return [
        Example(
            f"x{at}", now - 1000, now, int(row[0] > 1), dict(zip(NAMES, row, strict=True)), 0.5, f"{RECIPE}@0", OURS,
            label_partition=0, label_offset=at,
        )
        for at, row in enumerate(rows)
    ]  # fmt: skip


def taught(given: list[Example], feature_set: str = OURS) -> Lessons:
    lessons = Lessons(FRAUD.recipes, NAMES, feature_set)
    for example in given:
        lessons.take(msgspec.structs.replace(example, feature_set=feature_set))
    lessons.offsets[0] = len(given)
    return lessons


def announced(learnt: int, feature_set: str = OURS, key: str = KEY) -> ModelAnnouncement:
    return taught(examples(learnt), feature_set).announce(int(time.time() * 1000), key.encode())


def send(kafka: str, topic: str, *values: bytes, key: bytes = b"fraud") -> None:
    with Producer(kafka, linger_ms=1) as producer:
        for value in values:
            producer.send(topic, value, key=key)


class Scorers:
    """Payments at many terminals, and which models scored the last of them in each partition."""

    def __init__(self, kafka: str) -> None:
        self._kafka, self._sent = kafka, 0

    def pay(self) -> None:
        """Send some payments, each of another customer at another terminal."""
        now = int(time.time() * 1000)
        with Producer(self._kafka, linger_ms=1) as producer:
            for number in range(self._sent, self._sent + 8):
                ids = {"event_id": f"e{number}", "customer_id": f"c{number}", "terminal_id": f"t{number}"}
                value = encode({**ids, "event_time": now, "amount": 1.0})
                producer.send(TOPICS.events.name, value, key=ids["customer_id"].encode())
        self._sent += 8

    def models(self) -> list[str]:
        """The model of the newest score of each partition."""
        newest = {one.partition: one.value for one in records(self._kafka, TOPICS.scores.name)}
        return [msgspec.json.decode(value, type=Score).model_id for _, value in sorted(newest.items())]

    def all_follow(self, model_id: str, seconds: float = AT_ONCE) -> bool:
        """Say whether within that time the payments of every partition are scored by one model."""

        def follow() -> bool:
            self.pay()
            return self.models() == [model_id] * PARTITIONS

        return within(seconds, follow)


def test_a_rollback_is_in_every_scorer_within_seconds(
    settings: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two workers go by a person's pin, keep to it while newer models come, and follow the recipe again when told;
    what may not be used is refused with the reason and changes nothing; the history says who did what and why."""
    kafka, desk = settings["HEADRACE_KAFKA"], Desk(capsys)
    scorers = Scorers(kafka)
    with Processes(tmp_path, settings) as processes:
        for name, service in ("worker1", "worker"), ("worker2", "worker"), ("history", "history"):
            processes.start(name, f"services.{service}", "fraud")
        foreign, forged = announced(3, feature_set="f" * 16), announced(4, key="x" * 32)
        send(kafka, TOPICS.models.name, *map(encode, (foreign, forged, announced(5), announced(9))))
        processes.wait_ready(PATIENCE)
        assert scorers.all_follow(f"{RECIPE}@9", PATIENCE)
        assert within(10, lambda: f"{RECIPE}@9" in desk.listed()), main(["fraud", "list"])

        (changed,) = desk.ask("rollback", f"{RECIPE}@5", "--reason", "it was better")
        assert changed["model_id"] == f"{RECIPE}@5"
        assert scorers.all_follow(f"{RECIPE}@5")
        send(kafka, TOPICS.models.name, encode(announced(12)))
        assert within(PATIENCE, lambda: f"{RECIPE}@12" in desk.listed())
        assert scorers.all_follow(f"{RECIPE}@5")

        assert "made for feature set ffffffffffffffff" in desk.refused("promote", f"{RECIPE}@3", "--reason", "no")
        assert "its signature does not fit" in desk.refused("promote", f"{RECIPE}@4", "--reason", "no")
        assert "has no model nobody@1" in desk.refused("promote", "nobody@1", "--reason", "no")
        assert "has no recipe nobody" in desk.refused("promote", "nobody", "--reason", "no")
        assert len(records(kafka, TOPICS.aliases.name)) == 1

        desk.ask("promote", RECIPE, "--reason", "learning goes on")
        assert scorers.all_follow(f"{RECIPE}@12")
        assert within(PATIENCE, lambda: len(desk.ask("changes")) == 2)
        desk.ask("rollback", "--reason", "on second thoughts")
        assert scorers.all_follow(f"{RECIPE}@5")
        assert within(PATIENCE, lambda: len(desk.ask("changes")) == 3)
        told = [(one["model_id"], one["reason"].partition(": ")[2]) for one in desk.ask("changes")]
        assert told == [
            (f"{RECIPE}@5", "on second thoughts"),
            (None, "learning goes on"),
            (f"{RECIPE}@5", "it was better"),
        ]
        marks = {one["model_id"]: one["marks"] for one in desk.ask("list")}
        assert marks[f"{RECIPE}@5"] == ["champion (pinned)"]
        assert marks[f"{RECIPE}@3"] == ["lasting", "other features"]
        processes.check()  # nobody has been started again
