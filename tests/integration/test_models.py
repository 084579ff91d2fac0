"""The registry and its tool on real servers: what a person decides, every scorer does within seconds."""

import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

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
from tests.weights import weights

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


class World(NamedTuple):
    """A deployment whose settings are in the environment, and its processes: two workers and the history."""

    kafka: str
    processes: Processes


@pytest.fixture(scope="module")
def world(
    kafka_server: str, valkey_server: str, cassandra_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
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
    logs = tmp_path_factory.mktemp("logs")
    with pytest.MonkeyPatch.context() as patch, created(kafka_server, TOPICS), Processes(logs, settings) as processes:
        for name, value in settings.items():
            patch.setenv(name, value)
        for name, service in ("worker1", "worker"), ("worker2", "worker"), ("history", "history"):
            processes.start(name, f"services.{service}", "fraud")
        processes.wait_ready(PATIENCE)
        yield World(kafka_server, processes)


@pytest.fixture
def desk(world: World, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(capsys)


def examples(count: int, first_label: int = 0) -> list[Example]:
    now = int(time.time() * 1000)
    rows = np.random.default_rng(7).normal(size=(count, len(NAMES))).tolist()
    return [
        Example(
            f"x{at}", now - 1000, now, int(row[0] > 1), dict(zip(NAMES, row, strict=True)), 0.5, f"{RECIPE}@0", OURS,
            label_partition=0, label_offset=first_label + at,
        )
        for at, row in enumerate(rows)
    ]  # fmt: skip


def taught(given: list[Example], feature_set: str = OURS) -> Lessons:
    lessons = Lessons(FRAUD.recipes, NAMES, feature_set)
    for example in given:
        lessons.take(msgspec.structs.replace(example, feature_set=feature_set))
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


def test_a_rollback_is_in_every_scorer_within_seconds(world: World, desk: Desk) -> None:
    """Two workers go by a person's pin, keep to it while newer models come, and follow the recipe again when told;
    what may not be used is refused with the reason and changes nothing; the history says who did what and why."""
    foreign, forged = announced(3, feature_set="f" * 16), announced(4, key="x" * 32)
    send(world.kafka, TOPICS.models.name, *map(encode, (foreign, forged, announced(5), announced(9))))
    scorers = Scorers(world.kafka)
    assert scorers.all_follow(f"{RECIPE}@9")
    assert within(PATIENCE, lambda: f"{RECIPE}@9" in desk.listed())

    (changed,) = desk.ask("rollback", f"{RECIPE}@5", "--reason", "it was better")
    assert changed["model_id"] == f"{RECIPE}@5"
    assert scorers.all_follow(f"{RECIPE}@5")
    send(world.kafka, TOPICS.models.name, encode(announced(12)))

    assert "made for feature set ffffffffffffffff" in desk.refused("promote", f"{RECIPE}@3", "--reason", "no")
    assert "its signature does not fit" in desk.refused("promote", f"{RECIPE}@4", "--reason", "no")
    assert "has no model nobody@1" in desk.refused("promote", "nobody@1", "--reason", "no")
    assert "has no recipe nobody" in desk.refused("promote", "nobody", "--reason", "no")
    assert len(records(world.kafka, TOPICS.aliases.name)) == 1
    assert scorers.all_follow(f"{RECIPE}@5")

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
    assert "champion (pinned)" in marks[f"{RECIPE}@5"]
    assert "other features" in marks[f"{RECIPE}@3"]
    world.processes.check()  # nobody has been started again


def test_a_poisoned_example_is_taken_out(world: World, desk: Desk) -> None:
    """While a learner runs it is refused; with it stopped, the weights announced are those of a learner that never
    met the example, bit for bit."""
    given = examples(50, first_label=1000)
    poison = msgspec.structs.replace(given[30], features=dict.fromkeys(NAMES, 1e6), label=1)

    def announcements() -> list[ModelAnnouncement]:
        values = (record.value for record in records(world.kafka, TOPICS.models.name))
        said = [msgspec.json.decode(value, type=ModelAnnouncement) for value in values]
        return [one for one in said if one.course]  # the others are for scorers only

    def has_read(count: int) -> bool:
        said = announcements()
        return bool(said) and said[-1].example_offsets.get(0) == count

    process = world.processes.start("learner", "services.learner", "fraud")
    send(world.kafka, TOPICS.examples.name, *map(encode, given[:20]))
    assert within(PATIENCE, lambda: has_read(20)), process.epitaph()
    before = announcements()[-1]
    send(world.kafka, TOPICS.examples.name, *map(encode, [*given[:3], poison, *given[20:30], *given[31:50]]))
    assert within(PATIENCE, lambda: has_read(53)), process.epitaph()
    order = ("relearn", "--from", before.models[0].model_id, "--without", "x30")
    assert within(PATIENCE, lambda: main(["fraud", "show", before.models[0].model_id]) == 0), "not in the registry"
    assert "a learner runs" in desk.refused(*order)
    world.processes.stop(process)
    assert "x99: no example of it" in desk.refused(*order, "x99")
    assert announcements()[-1].example_offsets == {0: 53}
    (said,) = desk.ask(*order)
    assert (said["learnt"], said["left_out"], said["refused"]) == (29, 1, 0)
    never = Lessons.resume(before, FRAUD.recipes, NAMES, OURS, KEY.encode())
    for example in given[20:30] + given[31:]:
        never.take(example)
    last = announcements()[-1]
    assert last.example_offsets == {0: 53}
    for recipe, learner in Lessons.resume(last, FRAUD.recipes, NAMES, OURS, KEY.encode()).learners.items():
        assert weights(learner.model) == weights(never.learners[recipe].model)
