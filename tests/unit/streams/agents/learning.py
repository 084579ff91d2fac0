"""A learner on topics that are lists, killed before or after any step."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import msgspec
import numpy as np
from faust.types import TP

from schemas.codec import encode
from schemas.events import AliasChange, Example, ModelAnnouncement
from streams.agents.learner import Clock, LearnerAgent
from streams.metrics import Metrics
from streams.models.lessons import Lessons
from streams.runtime.batches import Batch
from streams.runtime.newest import Logged
from streams.runtime.records import Header, Records
from streams.usecases import FRAUD as SHIPPED
from tests.weights import weights

KEY = b"k" * 32
NOW = 1_700_000_000_000
FRAUD = replace(SHIPPED, recipes=("logistic", "binned"))
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


def agent(
    kafka: Kafka, key: bytes = KEY, metrics: Metrics | None = None, clock: Clock = lambda: NOW / 1000
) -> LearnerAgent:
    return LearnerAgent(
        FRAUD, TOPICS, kafka.newest_first, kafka.changes_newest_first, kafka, key,  # type: ignore[arg-type]
        metrics or Metrics("learner"), 0, clock,
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


def announced(numbers: int, key: bytes = KEY, feature_set: str = FEATURES) -> bytes:
    lessons = Lessons(FRAUD.recipes, NAMES, feature_set)
    for number in range(numbers):
        lessons.take(msgspec.structs.replace(example(number), feature_set=feature_set))
    lessons.offsets[0] = numbers
    return encode(lessons.announce(NOW, key))


def changes(kafka: Kafka) -> list[AliasChange]:
    return [msgspec.json.decode(value, type=AliasChange) for value in kafka.topics[TOPICS.aliases.name]]


def told(learner: LearnerAgent, *records: bytes) -> None:
    async def follow() -> None:
        for offset, record in enumerate(records):
            await learner.follow(TOPICS.aliases.name, Logged(offset, record))

    asyncio.run(follow())


def given(learner: LearnerAgent, *values: bytes) -> None:
    records = Records.of([None] * len(values), list(values), range(len(values)), [NOW] * len(values))
    asyncio.run(learner.on_batch(Batch(EXAMPLES.topic, 0, records, len(values), 1)))


def models(kafka: Kafka) -> list[tuple[list[str], bool]]:
    """The announcements: which models, and whether a learner can go on from it."""
    values = kafka.topics[TOPICS.models.name]
    said = [msgspec.json.decode(value, type=ModelAnnouncement) for value in values]
    return [([model.model_id for model in one.models], bool(one.course)) for one in said]
