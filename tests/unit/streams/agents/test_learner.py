"""The learner at work on topics that are lists: killed at any step, or given damaged models, it learns the same."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec
import numpy as np
import pytest
from faust.types import TP

from schemas.codec import encode
from schemas.events import Example, ModelAnnouncement
from streams.agents.learner import MOST_TRIED, LearnerAgent
from streams.metrics import Metrics
from streams.models.lessons import Lessons
from streams.models.snapshot import SnapshotRefused
from streams.runtime.batches import Batch
from streams.runtime.newest import Logged
from streams.runtime.records import Header, Records
from streams.usecases import FRAUD
from tests.weights import weights

KEY = b"k" * 32
NOW = 1_700_000_000_000
TOPICS = FRAUD.topics(2)
EXAMPLES = TP(TOPICS.examples.name, 0)
NAMES, FEATURES = FRAUD.features.names, FRAUD.features.fingerprint


class Killed(BaseException):
    """kill -9: nothing of the process's own runs any more."""


@dataclass
class Kafka:
    """Topics as lists. `steps_left` is how many steps a process may make before it is killed, in the next one:
    before what that step does, or after it."""

    topics: dict[str, list[bytes]] = field(default_factory=lambda: {topic.name: [] for topic in TOPICS})
    steps_left: int = 1 << 60
    after: bool = False

    def step(self, effect: partial[None] | None = None) -> None:
        self.steps_left -= 1
        dies = self.steps_left < 0
        if effect is not None and (self.after or not dies):
            effect()
        if dies:
            raise Killed

    async def newest_first(self) -> AsyncGenerator[Logged, None]:
        for one in self._newest_first(TOPICS.models.name):
            yield one

    async def changes_newest_first(self) -> AsyncGenerator[Logged, None]:
        for one in self._newest_first(TOPICS.aliases.name):
            yield one

    def _newest_first(self, topic: str) -> list[Logged]:
        return [Logged(offset, value) for offset, value in reversed([*enumerate(self.topics[topic])])]

    # What the learner asks of its sender.

    async def send(self, topic: str, key: bytes | None, value: bytes) -> None:
        self.step(partial(self.topics[topic].append, value))

    async def send_many(
        self, topic: str, keys: Sequence[bytes], values: Sequence[bytes], headers: Sequence[Sequence[Header]]
    ) -> None:
        self.step(partial(self.topics[topic].extend, values))

    def mark(self) -> None: ...

    async def acked(self, mark: None) -> None:
        self.step()


def example(number: int, label: int = 1) -> Example:
    values = np.random.default_rng(number).normal(size=len(NAMES)).tolist()
    return Example(
        event_id=f"e{number}",
        event_time=NOW,
        label_time=NOW,
        label=1 if number % 3 == 0 else 0,
        features=dict(zip(NAMES, values, strict=True)),
        score=0.1,
        model_id="logistic@0",
        feature_set=FEATURES,
        label_partition=number % 2,
        label_offset=number // 2,
    )


# 16 and 17 come twice, as their join was killed; one record is poison.
GIVEN = [*map(encode, map(example, range(18))), b"poison", *map(encode, map(example, range(14, 24)))]


def agent(kafka: Kafka, key: bytes = KEY, metrics: Metrics | None = None) -> LearnerAgent:
    return LearnerAgent(
        FRAUD, TOPICS, kafka.newest_first, kafka.changes_newest_first, kafka, key,  # type: ignore[arg-type]
        metrics or Metrics("learner"), 0, clock=lambda: NOW / 1000,
    )  # fmt: skip


async def live(kafka: Kafka, batch_size: int, announce_every: int = 2) -> LearnerAgent:
    """One process's life: it takes the model up, reads to the end, and announces it every so many batches."""
    learner = agent(kafka)
    await learner.take_up()
    log = kafka.topics[EXAMPLES.topic]
    at = max(0, (await learner.positions({EXAMPLES}))[EXAMPLES])
    batches = 0
    while at < len(log):
        values = log[at : at + batch_size]
        end = at + len(values)
        records = Records.of([None] * len(values), values, range(at, end), [NOW] * len(values))
        await learner.on_batch(Batch(EXAMPLES.topic, 0, records, end, 1))
        at, batches = end, batches + 1
        if batches % announce_every == 0:
            await learner.announce()
    await learner.announce()
    return learner


def uninterrupted() -> Lessons:
    lessons = Lessons(FRAUD.recipes, NAMES, FEATURES)
    for number in range(24):
        lessons.take(example(number))
    return lessons


def newest(kafka: Kafka) -> ModelAnnouncement:
    return msgspec.json.decode(kafka.topics[TOPICS.models.name][-1], type=ModelAnnouncement)


def assert_as_if_never_interrupted(kafka: Kafka) -> None:
    resumed = Lessons.resume(newest(kafka), FRAUD.recipes, NAMES, FEATURES, KEY)
    for recipe, learner in uninterrupted().learners.items():
        assert weights(resumed.learners[recipe].model) == weights(learner.model)
        assert resumed.learners[recipe].model_id == learner.model_id == f"{recipe}@24"
    assert resumed.offsets == {0: len(GIVEN)}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_killed_at_every_step_it_learns_the_same(batch_size: int, after: bool) -> None:
    """Killed before or after each effect on Kafka in turn, and its replacement one step further on: the last
    announced weights are those of a learner that took each example once, bit for bit."""
    steps = 0
    while True:
        kafka = Kafka(after=after)
        kafka.topics[EXAMPLES.topic] = list(GIVEN)
        killed = False
        for steps_left in (steps, steps + 1, 1 << 60):
            kafka.steps_left = steps_left
            try:
                asyncio.run(live(kafka, batch_size))
            except Killed:
                killed = True
        assert_as_if_never_interrupted(kafka)
        assert set(kafka.topics[TOPICS.dlq.name]) == {b"poison"}
        if not killed:
            break
        steps += 1
    assert steps > 5  # it was killed at all of them


def test_duplicates_are_counted() -> None:
    """What comes twice is seen in the metrics, and is neither learnt nor refused."""
    kafka, metrics = Kafka(), Metrics("learner")
    values = list(map(encode, [example(0), example(1), example(0)]))
    records = Records.of([None] * 3, values, range(3), [NOW] * 3)
    asyncio.run(agent(kafka, metrics=metrics).on_batch(Batch(EXAMPLES.topic, 0, records, 3, 1)))
    value = metrics.registry.get_sample_value
    assert value("headrace_duplicates_total", {"stage": "learner"}) == 1
    assert value("headrace_examples_learnt_total") == 2


def test_an_example_from_nowhere_is_poison() -> None:
    """A label partition that there is not is no place to keep a window for."""
    kafka, metrics = Kafka(), Metrics("learner")
    nowhere = encode(msgspec.structs.replace(example(0), label_partition=TOPICS.labels.partitions))
    values = [nowhere, encode(example(1))]
    learner = agent(kafka, metrics=metrics)
    asyncio.run(learner.on_batch(Batch(EXAMPLES.topic, 0, Records.of([None] * 2, values, range(2), [NOW] * 2), 2, 1)))
    assert kafka.topics[TOPICS.dlq.name] == [nowhere]
    assert [one.examples_learnt for one in learner.lessons.learners.values()] == [1] * len(FRAUD.recipes)


def announced(numbers: int, key: bytes = KEY, feature_set: str = FEATURES) -> bytes:
    lessons = Lessons(FRAUD.recipes, NAMES, feature_set)
    for number in range(numbers):
        lessons.take(msgspec.structs.replace(example(number), feature_set=feature_set))
    lessons.offsets[0] = numbers
    return encode(lessons.announce(NOW, key))


def flipped(value: bytes, field_: bytes = b'"state":"') -> bytes:
    at = value.index(field_) + len(field_) + 70
    return value[:at] + (b"A" if value[at : at + 1] != b"A" else b"B") + value[at + 1 :]


DAMAGED = {
    "flipped model": (flipped(announced(18)), "its signature does not fit"),
    "flipped labels seen": (flipped(announced(18), b'"course":"'), "its signature does not fit"),
    "changed offsets": (announced(18).replace(b'"0":18', b'"0":17'), "its signature does not fit"),
    "truncated": (announced(18)[:-40], "no announcement"),
    "null": (b"", "no announcement"),
    "not UTF-8": (b'{"model_id":"\xff"}', "no announcement"),
    "another key": (announced(18, key=b"x" * 32), "its signature does not fit"),
    "another feature set": (announced(18, feature_set="f" * 16), "made for feature set ffffffffffffffff"),
}


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_damaged_model_is_passed_over_by_name(damaged: str, caplog: pytest.LogCaptureFixture) -> None:
    """One line names its offset and why; the older model goes on, to the same weights."""
    value, why = DAMAGED[damaged]
    kafka = Kafka()
    kafka.topics[EXAMPLES.topic] = list(GIVEN)
    kafka.topics[TOPICS.models.name] = [announced(4), announced(9), value]
    caplog.set_level(logging.INFO)
    asyncio.run(live(kafka, 5))
    (line,) = {record.message for record in caplog.records if record.levelno >= logging.WARNING}
    assert line.startswith(f"{TOPICS.models.name}/0 at offset 2: ")
    assert why in line
    assert "models logistic@9 go on learning" in caplog.text
    assert_as_if_never_interrupted(kafka)


@pytest.mark.parametrize("older", [0, 3, MOST_TRIED], ids=lambda older: f"{older} foreign")
def test_without_a_sound_model_it_does_not_guess(older: int) -> None:
    """Where none of ours is sound the key may be wrong: it ends, and announces nothing over the others' models."""
    kafka = Kafka()
    models = [*[announced(3, feature_set="f" * 16)] * older, announced(5, key=b"x" * 32)]
    kafka.topics[TOPICS.models.name] = list(models)
    with pytest.raises(SnapshotRefused, match="1 were refused: is HEADRACE_MODEL_KEY"):
        asyncio.run(live(kafka, 5))
    assert kafka.topics[TOPICS.models.name] == models


def test_models_of_other_features_alone_are_no_reason_to_stop() -> None:
    """A changed feature set learns anew from the earliest example."""
    kafka = Kafka()
    kafka.topics[EXAMPLES.topic] = list(GIVEN)
    kafka.topics[TOPICS.models.name] = [announced(3, feature_set="f" * 16)] * 2
    asyncio.run(live(kafka, 5))
    assert_as_if_never_interrupted(kafka)
