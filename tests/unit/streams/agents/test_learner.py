"""The learner at work on topics that are lists: killed at any step, or given damaged models, it learns the same."""

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import msgspec
import numpy as np
import pytest
from faust.types import TP

from schemas.codec import encode
from schemas.events import AliasChange, Example, ModelAnnouncement
from streams.agents.learner import MOST_TRIED, RESUMABLE_EVERY, Clock, LearnerAgent
from streams.metrics import Metrics
from streams.models import judge, lessons
from streams.models.guard import FREEZE
from streams.models.judge import Seat
from streams.models.lessons import Lessons
from streams.models.snapshot import SnapshotRefused
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
    "flipped course": (flipped(announced(18), b'"course":"'), "its signature does not fit"),
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
    assert "models logistic@9, binned@9 go on learning" in caplog.text
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


@pytest.fixture
def small() -> Iterator[None]:
    """A champion is judged after 64 labels."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(judge, "BLOCK", 4)
        patched.setattr(judge, "FEWEST_POSITIVES", 3)
        patched.setattr(lessons, "GRID", 16)
        yield


def shadowed(number: int) -> Example:
    """What the challenger said of it was right."""
    one, rng = example(number), np.random.default_rng(number)
    right = one.label * 0.9 + 0.05
    return msgspec.structs.replace(
        one, score=0.5 + float(rng.normal(0, 0.02)), shadow={"binned": right + float(rng.normal(0, 0.01))}
    )


SHADOWED = [encode(shadowed(number)) for number in range(110)]


def changes(kafka: Kafka) -> list[AliasChange]:
    return [msgspec.json.decode(value, type=AliasChange) for value in kafka.topics[TOPICS.aliases.name]]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_every_step_the_same_champion_is_told(after: bool) -> None:
    """Every learner that comes past the labels that decide says the same, byte by byte, and none anything else."""
    whole = Kafka()
    whole.topics[EXAMPLES.topic] = SHADOWED
    seat = asyncio.run(live(whole, 9)).lessons.seat
    (change,) = changes(whole)
    assert (change.recipe, change.by, seat.champion) == ("binned", "learner", "binned")
    steps, killed = 0, True
    while killed:
        kafka = Kafka(after=after)
        kafka.topics[EXAMPLES.topic] = SHADOWED
        killed = False
        for steps_left in (steps, 1 << 60):
            kafka.steps_left = steps_left
            try:
                asyncio.run(live(kafka, 9))
            except Killed:
                killed = True
        assert set(map(encode, changes(kafka))) == {encode(change)}
        resumed = Lessons.resume(newest(kafka), FRAUD.recipes, NAMES, FEATURES, KEY)
        assert resumed.seat == seat
        steps += 1
    assert steps > 10


def pin(recipe: str = "logistic", key: bytes = KEY, feature_set: str = FEATURES) -> AliasChange:
    announcement = msgspec.json.decode(announced(5, key, feature_set), type=ModelAnnouncement)
    model = next(model for model in announcement.models if model.recipe == recipe)
    return AliasChange("champion", recipe, "operator", "a person's reason", NOW, model)


def told(learner: LearnerAgent, *records: bytes) -> None:
    async def follow() -> None:
        for offset, record in enumerate(records):
            await learner.follow(TOPICS.aliases.name, Logged(offset, record))

    asyncio.run(follow())


@pytest.mark.usefixtures("small")
def test_a_pin_is_followed_and_survives_a_change_that_did_not_know_of_it() -> None:
    """A record of the learner that comes right after a person's pin is answered by the pin, said again."""
    kafka = Kafka()
    kafka.topics[EXAMPLES.topic] = SHADOWED
    kafka.topics[TOPICS.aliases.name] = [encode(pin())]
    learner = asyncio.run(live(kafka, 9))
    assert learner.lessons.seat == Seat("logistic", pinned=True)
    assert changes(kafka) == [pin()]
    own = AliasChange("champion", "binned", "learner", "decided a moment before", NOW, judged=64)
    told(learner, encode(own))
    assert changes(kafka) == [pin(), pin()]
    assert learner.lessons.seat.champion == "logistic"
    told(learner, encode(AliasChange("champion", "binned", "operator", "go on with this", NOW)))
    assert learner.lessons.seat == Seat("binned", since=len(SHADOWED))


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (b"nonsense", "malformed"),
        (b"", "truncated"),
        (encode(pin(key=b"x" * 32)), "its signature does not fit"),
        (encode(pin(feature_set="f" * 16)), "made for feature set ffffffffffffffff"),
        (encode(AliasChange("champion", "forest", "operator", "", NOW)), "there is no recipe forest here"),
        (encode(msgspec.structs.replace(pin(), recipe="binned")), "logistic@5: pinned as one of binned"),
    ],
)
def test_a_change_that_may_not_be_is_refused(record: bytes, why: str, caplog: pytest.LogCaptureFixture) -> None:
    """One line names its offset and why, and it is counted; the champion stays."""
    metrics = Metrics("learner")
    learner = agent(Kafka(), metrics=metrics)
    told(learner, record)
    (line,) = [one.message for one in caplog.records]
    assert line.startswith(f"{TOPICS.aliases.name}/0 at offset 0: refused: ")
    assert why in line
    assert metrics.registry.get_sample_value("headrace_models_refused_total") == 1
    assert learner.lessons.seat == Seat("logistic")


def given(learner: LearnerAgent, *values: bytes) -> None:
    records = Records.of([None] * len(values), list(values), range(len(values)), [NOW] * len(values))
    asyncio.run(learner.on_batch(Batch(EXAMPLES.topic, 0, records, len(values), 1)))


def read(learner: LearnerAgent, number: int) -> None:
    value = encode(example(number))
    records = Records.of([None], [value], [number], [NOW])
    asyncio.run(learner.on_batch(Batch(EXAMPLES.topic, 0, records, number + 1, 1)))


def test_unfit_values_are_put_aside_with_the_reason() -> None:
    """What no model may learn from is a dead letter, counted, and nothing of it is learnt."""
    kafka, metrics = Kafka(), Metrics("learner")
    learner = agent(kafka, metrics=metrics)
    huge = encode(msgspec.structs.replace(example(1), features=dict.fromkeys(NAMES, 1e200)))
    heavy = encode(msgspec.structs.replace(example(2), weight=1e9))
    short = encode(msgspec.structs.replace(example(3), features={}))
    given(learner, encode(example(0)), huge, heavy, b"poison", short, encode(example(4)))
    assert kafka.topics[TOPICS.dlq.name] == [huge, heavy, b"poison", short]
    assert metrics.registry.get_sample_value("headrace_dlq_total", {"reason": "unfit_value"}) == 3
    assert [one.examples_learnt for one in learner.lessons.learners.values()] == [2, 2]


def test_guards_and_champion_are_seen() -> None:
    """A trip is counted and named, for how long learning stands still is shown, and who is champion."""
    metrics = Metrics("learner")
    learner = agent(Kafka(), metrics=metrics)
    learner.lessons.learners["binned"].guard.trip()
    given(learner, encode(example(0)))
    learner.show()
    value = metrics.registry.get_sample_value
    for recipe, trips, frozen, champion in (("logistic", 0, 0, 1), ("binned", 1, FREEZE - 1, 0)):
        assert value("headrace_guard_trips_total", {"recipe": recipe}) == trips
        assert value("headrace_learning_frozen", {"recipe": recipe}) == frozen
        assert value("headrace_champion", {"recipe": recipe}) == champion
    assert value("headrace_progressive", {"recipe": "logistic", "measure": "log_loss"}) == pytest.approx(
        -np.log(0.1), rel=1e-6
    )


def test_how_well_it_was_decided_is_seen() -> None:
    """Live, and of each recipe: of four payments the two of 1,000 would have been stopped at the scores they were given
    by the champion, one of which was a fraud, as was another; at the challenger's none."""
    metrics = Metrics("learner")
    learner = agent(Kafka(), metrics=metrics)

    def paid(number: int, amount: float, label: Literal[0, 1]) -> bytes:
        one = example(number)
        quiet = dict.fromkeys(NAMES, 0.0) | {"amount": amount}
        return encode(msgspec.structs.replace(one, label=label, features=quiet, shadow={"binned": 0.001}))

    given(learner, paid(0, 1000.0, 1), paid(1, 1000.0, 0), paid(2, 1.0, 1), paid(3, 1.0, 0))
    learner.show()
    for measure, champion, challenger in (("precision", 0.5, math.nan), ("recall", 0.5, 0.0), ("f1", 0.5, 0.0)):
        for recipe, value in (("logistic", champion), ("binned", challenger)):
            labels = {"recipe": recipe, "measure": measure}
            shown = metrics.registry.get_sample_value("headrace_progressive", labels)
            assert shown == pytest.approx(value, nan_ok=True), labels


def models(kafka: Kafka) -> list[tuple[list[str], bool]]:
    """The announcements: which models, and whether a learner can go on from it."""
    values = kafka.topics[TOPICS.models.name]
    said = [msgspec.json.decode(value, type=ModelAnnouncement) for value in values]
    return [([model.model_id for model in one.models], bool(one.course)) for one in said]


def test_an_unsound_model_is_not_announced() -> None:
    """Until its guard has taken it back the one before it stays out, and the other recipes' newest go on."""
    kafka = Kafka()
    learner = agent(kafka)
    given(learner, encode(example(0)))
    learner.lessons.learners["logistic"].model["LogisticRegression"].intercept = float("nan")  # type: ignore[index]
    assert asyncio.run(learner.announce())
    given(learner, encode(example(0)), encode(example(1)))
    assert learner.lessons.learners["logistic"].guard.trips == 1
    assert asyncio.run(learner.announce())
    learner.lessons.learners["logistic"].guard.frozen = 0
    given(learner, encode(example(0)), encode(example(1)), encode(example(2)))
    assert learner.lessons.learners["logistic"].guard.on_trial
    assert asyncio.run(learner.announce())
    assert [names for names, _ in models(kafka)] == [
        ["binned@1"], ["logistic@2", "binned@2"], ["logistic@2", "binned@3"],
    ]  # fmt: skip


def test_the_model_that_is_shown_is_the_one_that_is_out() -> None:
    """While the champion is on trial that is its last sound snapshot, with its own age, and after a crash it still is;
    another recipe's, where that is champion."""
    kafka, metrics, now = Kafka(), Metrics("learner"), [NOW / 1000]
    learner = agent(kafka, metrics=metrics, clock=lambda: now[0])

    def shown(learner: LearnerAgent) -> tuple[list[str], float | None]:
        learner.show()
        samples = [one for family in metrics.model_created.collect() for one in family.samples]
        age = metrics.registry.get_sample_value("headrace_model_age_seconds")
        return [one.labels["model_id"] for one in samples], age

    assert shown(learner) == ([], 0.0)
    given(learner, encode(example(0)), encode(example(1)))
    assert asyncio.run(learner.announce())
    guard = learner.lessons.learners["logistic"].guard
    guard.trip()
    guard.frozen = 0
    now[0] += 10
    given(learner, encode(example(0)), encode(example(1)), encode(example(2)))
    assert asyncio.run(learner.announce())
    assert models(kafka)[-1] == (["logistic@2", "binned@3"], True)
    now[0] += 5
    assert shown(learner) == (["logistic@2"], 15.0)
    resumed = agent(kafka, metrics=metrics, clock=lambda: now[0])
    asyncio.run(resumed.take_up())
    assert resumed.lessons.learners["logistic"].guard.on_trial
    assert shown(resumed) == (["logistic@2"], 15.0)
    told(resumed, encode(AliasChange("champion", "binned", "operator", "go on with this", NOW)))
    assert shown(resumed) == (["binned@3"], 5.0)


async def several_lives(kafka: Kafka, lives: Sequence[tuple[int, str]]) -> None:
    """One process after the other: each reads so many examples, and announces after each for learners (l), for
    scorers (s), or not at all."""
    for upto, announcements in lives:
        learner = agent(kafka)
        await learner.take_up()
        at = max(0, (await learner.positions({EXAMPLES}))[EXAMPLES])
        for offset, announced_ in zip(range(at, upto), announcements, strict=True):
            value = encode(example(offset))
            await learner.on_batch(
                Batch(EXAMPLES.topic, 0, Records.of([None], [value], [offset], [NOW]), offset + 1, 1)
            )
            if announced_ in "ls":
                await learner.announce(resumable=announced_ == "l")


def test_what_is_for_scorers_is_never_gone_on_from_and_never_gone_back_behind() -> None:
    """Killed, it goes on from the last announcement that holds all; scorers hear nothing until it is further than they
    are."""
    kafka = Kafka()
    asyncio.run(several_lives(kafka, [(4, "slss"), (6, "ssss"), (6, "llll")]))
    assert models(kafka) == [
        (["logistic@1", "binned@1"], True),  # the first is one to go on from
        (["logistic@2", "binned@2"], True),
        (["logistic@3", "binned@3"], False),
        (["logistic@4", "binned@4"], False),
        # The second began again at 2 and told nothing of 3 and 4.
        (["logistic@5", "binned@5"], False),
        (["logistic@6", "binned@6"], False),
        (["logistic@6", "binned@6"], True),
    ]
    lessons = Lessons(FRAUD.recipes, NAMES, FEATURES)
    for number in range(6):
        lessons.take(example(number))
    resumed = Lessons.resume(newest(kafka), FRAUD.recipes, NAMES, FEATURES, KEY)
    for recipe, learner in lessons.learners.items():
        assert weights(resumed.learners[recipe].model) == weights(learner.model)


def test_a_round_that_had_nothing_to_go_on_from_is_made_up_for() -> None:
    """One announcement in 15 rounds holds all; where there was nothing to say in its turn, the next one does."""
    kafka = Kafka()
    learner = agent(kafka)
    turns = RESUMABLE_EVERY

    def rounds(count: int, news: bool) -> list[bool]:
        before = len(models(kafka))
        for number in range(before, before + count):
            if news:
                read(learner, number)
            assert asyncio.run(learner.announce_in_turn()) is news
        return [whole for _, whole in models(kafka)[before:]]

    assert rounds(turns + 1, news=True) == [True, *[False] * (turns - 1), True]
    assert rounds(turns + 3, news=False) == []
    assert rounds(turns + 1, news=True) == [True, *[False] * (turns - 1), True]
    # Examples that scorers know of already are news for who goes on from there.
    assert rounds(turns - 1, news=True) == [False] * (turns - 1)
    assert asyncio.run(learner.announce_in_turn())
    assert models(kafka)[-1][1]


def test_scorers_announcements_of_another_feature_set_are_passed_over() -> None:
    """As those to go on from are: learning begins anew, and nothing is held back."""
    other = Lessons(FRAUD.recipes, NAMES, "f" * 16)
    other.offsets[0] = 900
    kafka = Kafka()
    kafka.topics[TOPICS.models.name] = [encode(other.announce(NOW, KEY, resumable=whole)) for whole in (True, False)]
    asyncio.run(several_lives(kafka, [(1, "s")]))
    assert models(kafka)[2:] == [(["logistic@1", "binned@1"], True)]


def test_scorers_announcements_of_other_recipes_hold_nothing_back() -> None:
    """Scorers have no use for them; learning begins anew, and is told from the first."""
    other = Lessons(("tree",), NAMES, FEATURES)
    other.offsets[0] = 900
    kafka = Kafka()
    kafka.topics[TOPICS.models.name] = [encode(other.announce(NOW, KEY, resumable=whole)) for whole in (True, False)]
    asyncio.run(several_lives(kafka, [(1, "s")]))
    assert models(kafka)[2:] == [(["logistic@1", "binned@1"], True)]


def test_after_a_crash_no_older_model_goes_out_again() -> None:
    """One that must not be announced now stays what scorers were told last, not what the learner goes on from."""
    kafka = Kafka()
    asyncio.run(several_lives(kafka, [(3, "lss")]))
    learner = agent(kafka)
    asyncio.run(learner.take_up())
    given(learner, *(encode(example(number)) for number in range(4)))
    learner.lessons.learners["logistic"].model["LogisticRegression"].intercept = float("nan")  # type: ignore[index]
    assert asyncio.run(learner.announce())
    assert models(kafka)[-1][0] == ["logistic@3", "binned@4"]


def test_learning_anew_begins_with_the_champion_that_serves() -> None:
    """Other features, the same recipes: scorers go by the alias, and so does the judge."""
    kafka = Kafka()
    kafka.topics[TOPICS.models.name] = [announced(3, feature_set="f" * 16)]
    kafka.topics[TOPICS.aliases.name] = [encode(AliasChange("champion", "binned", "learner", "", NOW, judged=9_000))]
    learner = agent(kafka)
    asyncio.run(learner.take_up())
    assert learner.lessons.seat == Seat("binned")
