"""The learner and who is champion: judged the same wherever it is killed, and a person's word is followed."""

import asyncio
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from schemas.codec import encode
from schemas.events import AliasChange, Example, ModelAnnouncement
from streams.metrics import Metrics
from streams.models import judge, lessons
from streams.models.judge import Seat
from streams.models.lessons import Lessons
from tests.unit.streams.agents.learning import (
    EXAMPLES,
    FEATURES,
    FRAUD,
    KEY,
    NAMES,
    NOW,
    TOPICS,
    Kafka,
    Killed,
    agent,
    announced,
    changes,
    example,
    live,
    newest,
    told,
)


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


def test_learning_anew_begins_with_the_champion_that_serves() -> None:
    """Other features, the same recipes: scorers go by the alias, and so does the judge."""
    kafka = Kafka()
    kafka.topics[TOPICS.models.name] = [announced(3, feature_set="f" * 16)]
    kafka.topics[TOPICS.aliases.name] = [encode(AliasChange("champion", "binned", "learner", "", NOW, judged=9_000))]
    learner = agent(kafka)
    asyncio.run(learner.take_up())
    assert learner.lessons.seat == Seat("binned")
