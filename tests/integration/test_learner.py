"""The learner process on a real Kafka: its model is a function of the examples, whatever happens to it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import msgspec
import numpy as np
import pytest

from infra.local.ports import free_port
from schemas.codec import encode
from schemas.events import AliasChange, Example, ModelAnnouncement
from streams.models.lessons import Lessons
from streams.models.snapshot import snapshot_of, unseal
from streams.runtime.producer import Producer
from streams.usecases import FRAUD
from tests.local import created, records, within
from tests.weights import weights

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
KEY = "k" * 32
TOPICS = FRAUD.topics(1)
CHAMPION = FRAUD.recipes[0]
NAMES, FINGERPRINT = FRAUD.features.names, FRAUD.features.fingerprint
PATIENCE = 60.0  # seconds


@pytest.fixture
def kafka(kafka_server: str) -> Iterator[str]:
    """A Kafka with the use case's topics, all empty."""
    with created(kafka_server, TOPICS):
        yield kafka_server


class Process:
    """A learner as its users start it; what it writes to stderr is in `said`."""

    def __init__(self, kafka: str, folder: Path, **settings: str) -> None:
        self._log = folder / f"learner-{time.monotonic_ns()}.log"
        environment = {"HEADRACE_KAFKA": kafka, "HEADRACE_MODEL_KEY": KEY, "HEADRACE_PARTITIONS": "1"}
        environment |= {"HEADRACE_SESSION_SECONDS": "2", "HEADRACE_SNAPSHOT_SECONDS": "0.3"}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services.learner", "fraud"],
                cwd=ROOT,
                stderr=log,
                env=os.environ | environment | settings,
            )

    @property
    def said(self) -> str:
        return self._log.read_text()

    def end(self, number: int) -> int:
        self._process.send_signal(number)
        return self._process.wait(20)

    def wait(self) -> int:
        return self._process.wait(PATIENCE)

    def stop(self) -> None:
        """Let it leave its group, so that the next one does not wait for it."""
        with suppress(subprocess.TimeoutExpired):
            self.end(signal.SIGTERM)
        self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(20)


@pytest.fixture
def start(kafka: str, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def process(**settings: str) -> Process:
        started.append(Process(kafka, tmp_path, **settings))
        return started[-1]

    yield process
    for one in started:
        one.stop()


def examples(count: int, first: int = 0) -> list[Example]:
    rng = np.random.default_rng(first)
    now = int(time.time() * 1000)
    return [
        Example(
            event_id=f"e{first + i}",
            event_time=now - 1000,
            label_time=now,
            label=int(row[0] > 1),
            features=dict(zip(NAMES, row.tolist(), strict=True)),
            score=float(1 / (1 + np.exp(-row[0]))),
            model_id=f"{CHAMPION}@0",
            feature_set=FINGERPRINT,
            label_partition=0,
            label_offset=first + i,
        )
        for i, row in enumerate(rng.normal(size=(count, len(NAMES))))
    ]


def send(kafka: str, topic: str, *values: bytes) -> None:
    with Producer(kafka, linger_ms=1) as producer:
        for value in values:
            producer.send(topic, value, key=FRAUD.name.encode())


def teach(kafka: str, given: list[Example]) -> None:
    send(kafka, TOPICS.examples.name, *map(encode, given))


def values(kafka: str, topic: str) -> list[bytes]:
    """Every value in the topic."""
    return [record.value for record in records(kafka, topic)]


def announced(kafka: str) -> list[ModelAnnouncement]:
    return [msgspec.json.decode(value, type=ModelAnnouncement) for value in values(kafka, TOPICS.models.name)]


def announced_since(kafka: str, offset: int) -> list[ModelAnnouncement]:
    return [msgspec.json.decode(value, type=ModelAnnouncement) for value in values(kafka, TOPICS.models.name)[offset:]]


def has_learnt(kafka: str, count: int) -> bool:
    given = values(kafka, TOPICS.models.name)
    return bool(given) and msgspec.json.decode(given[-1], type=ModelAnnouncement).models[0].examples_learnt >= count


def taught(given: list[Example], feature_set: str = FINGERPRINT) -> Lessons:
    lessons = Lessons(FRAUD.recipes, NAMES, feature_set)
    lessons.take_rows(lessons.rows([msgspec.structs.replace(example, feature_set=feature_set) for example in given]))
    return lessons


def assert_is(announcement: ModelAnnouncement, lessons: Lessons) -> None:
    """The announced models are the learners' to the last bit."""
    for recipe, learner in lessons.learners.items():
        snapshot = snapshot_of(announcement, recipe)
        assert snapshot.model_id == learner.model_id
        assert weights(unseal(snapshot, KEY.encode(), FINGERPRINT, NAMES).model) == weights(learner.model)


def test_killed_again_and_again_the_model_is_the_same(kafka: str, start: Callable[..., Process]) -> None:
    """Killed at any moment, it goes on from model, offset and labels seen together: every example is learnt once,
    also those that a killed join sent again."""
    given: list[Example] = []
    for first in (0, 700, 1400):
        learner = start()
        more = examples(700, first)
        teach(kafka, given[-100:] + more[:400])
        assert within(PATIENCE, partial(has_learnt, kafka, first + 1)), learner.said
        teach(kafka, more[400:])  # it dies somewhere in these
        learner.kill()
        given += more
    learner = start()
    assert within(PATIENCE, lambda: has_learnt(kafka, len(given))), learner.said
    last = announced(kafka)[-1]
    assert last.example_offsets == {0: len(given) + 200}
    assert_is(last, taught(given))


def shadowed(one: Example) -> Example:
    """What the last recipe said of it was much better than what the champion did."""
    return msgspec.structs.replace(one, score=0.5, shadow={FRAUD.recipes[-1]: 0.02 + 0.96 * one.label})


def test_stopped_it_announces_what_it_has_learnt(kafka: str, start: Callable[..., Process]) -> None:
    """SIGTERM: the last announcement holds every example, although it was not yet time for one; exit 0. The recipe
    that did better was made champion at once."""
    given = list(map(shadowed, examples(4_100)))
    learner = start(HEADRACE_SNAPSHOT_SECONDS="600")
    teach(kafka, given)
    assert within(PATIENCE, lambda: metric(learner, "headrace_examples_learnt_total") == len(given)), learner.said
    (change,) = (msgspec.json.decode(value, type=AliasChange) for value in values(kafka, TOPICS.aliases.name))
    assert (change.recipe, change.by, change.judged) == (FRAUD.recipes[-1], "learner", 4_096)
    assert announced(kafka) == []
    assert learner.end(signal.SIGTERM) == 0, learner.said
    (only,) = announced(kafka)
    assert_is(only, taught(given))


def metric(learner: Process, name: str) -> float | None:
    """Return a sample's value on the process's metrics page, None while there is none."""
    pages = [line.split()[-1] for line in learner.said.splitlines() if line.startswith("metrics: ")]
    lines = urlopen(pages[0], timeout=5).read().decode().splitlines() if pages else []
    return next((float(line.split()[-1]) for line in lines if line.rsplit(" ", 1)[0] == name), None)


def test_it_shows_how_well_the_scores_did(kafka: str, start: Callable[..., Process]) -> None:
    """Progressive metrics are of the scores given at the time; the model's id and age are on the page."""
    teach(kafka, examples(300))
    learner = start()
    auc, log_loss = (f'headrace_progressive{{measure="{name}",recipe="{CHAMPION}"}}' for name in ("auc", "log_loss"))
    assert within(PATIENCE, lambda: metric(learner, auc) == 1.0), learner.said
    assert (metric(learner, log_loss) or 0) > 0
    assert metric(learner, f'headrace_champion{{recipe="{CHAMPION}"}}') == 1
    made = f'headrace_model_created_timestamp_seconds{{model_id="{CHAMPION}@300"}}'
    assert within(PATIENCE, lambda: metric(learner, made)), learner.said
    assert metric(learner, "headrace_model_age_seconds") is not None


def test_poison_is_put_aside_and_nothing_else_disturbed(kafka: str, start: Callable[..., Process]) -> None:
    """Undecodable, mistyped and unfit examples end in the DLQ; those of other features are refused; all are counted,
    and the rest is learnt."""
    good = examples(40)
    foreign = msgspec.structs.replace(good[0], feature_set="f" * 16, label_offset=100)
    huge = msgspec.structs.replace(good[0], features={**good[0].features, "amount": 1e200}, label_offset=101)
    mistyped = encode(good[0]).replace(b'"label":', b'"label":"x","was":')
    teach(kafka, good[:20])
    send(kafka, TOPICS.examples.name, b"\xff\xfe", mistyped, encode(foreign), encode(huge))
    teach(kafka, good[20:])
    learner = start()
    assert within(PATIENCE, lambda: has_learnt(kafka, 40)), learner.said
    assert_is(announced(kafka)[-1], taught(good))
    assert values(kafka, TOPICS.dlq.name) == [b"\xff\xfe", mistyped, encode(huge)]
    assert metric(learner, 'headrace_examples_refused_total{reason="feature_set"}') == 1
    assert metric(learner, 'headrace_dlq_total{reason="unfit_value"}') == 1


def announcement(key: str = KEY, feature_set: str = FINGERPRINT) -> ModelAnnouncement:
    lessons = taught(examples(60)[:50], feature_set)
    lessons.offsets = {0: 50}
    return lessons.announce(1, key.encode())


def test_damaged_models_are_passed_over(kafka: str, start: Callable[..., Process]) -> None:
    """Flipped, cut, or of another key: each is named by its offset, and the sound one before them goes on."""
    good, given = encode(announcement()), examples(60)
    at = good.index(b'"state":"') + 100
    flipped = good[:at] + (b"A" if good[at : at + 1] != b"A" else b"B") + good[at + 1 :]
    teach(kafka, given)
    send(kafka, TOPICS.models.name, good, flipped, good[:-9], encode(announcement(key="x" * 32)))
    learner = start()
    assert within(PATIENCE, lambda: len(announced_since(kafka, 4)) > 0), learner.said
    assert_is(announced_since(kafka, 4)[-1], taught(given))
    for offset in (1, 2, 3):
        assert f"{TOPICS.models.name}/0 at offset {offset}: refused" in learner.said
    assert f"models {', '.join(f'{recipe}@50' for recipe in FRAUD.recipes)} go on learning" in learner.said
    assert metric(learner, "headrace_models_refused_total") in (3, 6)  # at its start, and when it got the partition


def test_no_model_that_it_can_trust_stops_it(kafka: str, start: Callable[..., Process]) -> None:
    """With a wrong key none is sound: it ends, names the reason, and announces nothing over the good ones."""
    good = encode(announcement())
    teach(kafka, examples(60))
    send(kafka, TOPICS.models.name, good)
    learner = start(HEADRACE_MODEL_KEY="x" * 32)
    assert learner.wait() == 1
    assert "is HEADRACE_MODEL_KEY the one they were signed with?" in learner.said
    assert "Traceback" not in learner.said
    assert values(kafka, TOPICS.models.name) == [good]


def test_a_model_of_other_features_is_learnt_anew(kafka: str, start: Callable[..., Process]) -> None:
    """Another feature set begins with the earliest example."""
    given = examples(60)
    teach(kafka, given)
    send(kafka, TOPICS.models.name, encode(announcement(feature_set="f" * 16)))
    learner = start()
    assert within(PATIENCE, lambda: len(announced(kafka)) > 1 and has_learnt(kafka, 60)), learner.said
    assert_is(announced(kafka)[-1], taught(given))
    assert f"{CHAMPION}@50: made for feature set ffffffffffffffff" in learner.said


def test_an_unreachable_kafka_is_named(tmp_path: Path) -> None:
    """One line with the address, exit 1."""
    port = free_port()
    learner = Process(f"127.0.0.1:{port}", tmp_path)
    assert learner.wait() == 1
    assert f"Kafka at 127.0.0.1:{port} does not answer" in learner.said
    assert "Traceback" not in learner.said


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    """One line with the variable, exit 2."""
    learner = Process("127.0.0.1:1", tmp_path, HEADRACE_MODEL_KEY="short")
    assert learner.wait() == 2
    assert "HEADRACE_MODEL_KEY" in learner.said
    assert "Traceback" not in learner.said
