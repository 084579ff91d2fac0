"""Model swap: what is announced is put to use if it may be, and refused without harm if it may not."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from schemas.codec import encode
from schemas.events import AliasChange, ModelAnnouncement, ModelSnapshot
from streams.agents.models import ModelFeed
from streams.agents.scoring import ServingModel
from streams.metrics import Metrics
from streams.models.lessons import Lessons
from streams.models.recipes import RECIPES, Recipe
from streams.runtime.newest import Logged
from streams.usecases import FRAUD, UseCase

KEY = b"k" * 32
NAMES, FEATURE_SET = FRAUD.features.names, FRAUD.features.fingerprint
ALONE = replace(FRAUD, recipes=("logistic",))
BOTH = replace(FRAUD, recipes=("logistic", "twin"))
MODELS, ALIASES = "fraud.models", "fraud.aliases"


@pytest.fixture(autouse=True)
def twin(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second recipe, whatever others there are."""
    monkeypatch.setitem(RECIPES, "twin", Recipe("twin", RECIPES["logistic"].make))


def announcement(
    usecase: UseCase = ALONE, key: bytes = KEY, feature_set: str = FEATURE_SET, created_at: int = 9_000, learnt: int = 5
) -> ModelAnnouncement:
    lessons = Lessons(usecase.recipes, NAMES, feature_set)
    for recipe in usecase.recipes:
        lessons.learners[recipe].examples_learnt = learnt
    return lessons.announce(created_at, key)


def announced(usecase: UseCase = ALONE, key: bytes = KEY, feature_set: str = FEATURE_SET, created_at: int = 9_000,
              learnt: int = 5) -> bytes:  # fmt: skip
    return encode(announcement(usecase, key, feature_set, created_at, learnt))


def snapshot(recipe: str, learnt: int, key: bytes = KEY, feature_set: str = FEATURE_SET) -> ModelSnapshot:
    """One model of its own, to be pinned."""
    one = replace(FRAUD, recipes=(recipe,))
    return announcement(one, key, feature_set, learnt=learnt).models[0]


def change(recipe: str, model: ModelSnapshot | None = None) -> bytes:
    return encode(AliasChange("champion", recipe, "operator", "said so", 1, model))


class Fed:
    """A feed without Kafka: records as if they had come from it."""

    def __init__(self, usecase: UseCase = ALONE) -> None:
        self.swapped: list[ServingModel] = []
        self.metrics = Metrics("worker")
        topics = usecase.topics(1)
        self.feed = ModelFeed(usecase, "127.0.0.1:1", topics, KEY, self.metrics, self.swapped.append)

    def take(self, *records: tuple[str, bytes]) -> "Fed":
        for offset, (topic, value) in enumerate(records, start=7):
            asyncio.run(self.feed._take(topic, Logged(offset, value)))
        return self

    @property
    def serving(self) -> tuple[str, list[str]]:
        """The champion's id and who scores in its shadow."""
        return self.swapped[-1].model_id, [one.recipe for one in self.swapped[-1].challengers]

    @property
    def refused(self) -> float | None:
        return self.metrics.registry.get_sample_value("headrace_models_refused_total")


def test_a_sealed_model_is_put_to_use() -> None:
    """A snapshot signed with our key, of our features, serves under its own id."""
    fed = Fed().take((MODELS, announced()))
    (model,) = fed.swapped
    assert (model.model_id, model.created_at, model.challengers, fed.refused) == ("logistic@5", 9_000, (), 0)


def test_a_model_serves_with_its_calibrator() -> None:
    """What the snapshot has learnt of its own scores goes with it."""
    lessons = Lessons(ALONE.recipes, NAMES, FEATURE_SET)
    calibrator = lessons.learners["logistic"].calibrator
    random = np.random.default_rng(1)
    calibrator.learn_many(random.random(500), (random.random(500) < 0.3).astype(np.int8), np.ones(500))
    (model,) = Fed().take((MODELS, encode(lessons.announce(1, KEY)))).swapped
    assert model.calibrator.to_array().tobytes() == calibrator.to_array().tobytes()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_model_serves_with_its_reasons(recipe: str) -> None:
    """Of a model that has learnt that large amounts are frauds, the amount moves a large payment's score up."""
    usecase = replace(FRAUD, recipes=(recipe,))
    lessons = Lessons(usecase.recipes, NAMES, FEATURE_SET)
    amount = NAMES.index("amount")
    rows = np.zeros((2_000, len(NAMES)))
    rows[:, amount] = np.random.default_rng(1).exponential(20.0, len(rows))
    rows[::10, amount] += 400.0
    labels = (rows[:, amount] >= 400).astype(np.int8)
    lessons.learners[recipe].learn_rows(rows, labels, np.ones(len(rows)))
    (model,) = Fed(usecase).take((MODELS, encode(lessons.announce(1, KEY)))).swapped
    assert model.explainer
    effects = model.explainer.effects(rows[:10])
    assert effects.argmax(axis=1)[0] == amount
    # A tree that is not told the amount takes the branch that most take.
    assert effects[0, amount] > 0 >= effects[1, amount]


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{}",
        b'{"model_id":"\xff"}',
        b'{"x":' + b"[" * 60_000,
        announced(key=b"x" * 32),
        announced(feature_set="0" * 16),
        announced().replace(b'"examples_learnt":5', b'"examples_learnt":6'),
        announced().replace(b'"logistic"', b'"stranger"'),
    ],
    ids=["null", "no fields", "not UTF-8", "a nesting bomb", "another key", "other features", "altered", "unknown"],
)
def test_anything_else_is_refused_and_counted(value: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is swapped, one more is counted, a line names its place, and the feed lives to read the next."""
    fed = Fed().take((MODELS, value))
    assert (fed.swapped, fed.refused) == ([], 1)
    (line,) = [record.message for record in caplog.records]
    assert line.startswith("fraud.models/0 at offset 7: refused, ")
    assert fed.take((MODELS, announced())).serving == ("logistic@5", [])


def test_one_bad_snapshot_does_not_hold_up_the_others() -> None:
    """Of two models the one that is sound is put to use; the older of the other goes on in the shadow."""
    fed = Fed(BOTH).take((MODELS, announced(BOTH)))
    newer = announcement(BOTH, learnt=6)
    forged = [
        model if model.recipe == "logistic" else msgspec.structs.replace(model, state=b"") for model in newer.models
    ]
    fed.take((MODELS, encode(msgspec.structs.replace(newer, models=forged))))
    assert (fed.serving, fed.refused) == (("logistic@6", ["twin"]), 1)


def test_a_recipe_that_is_learnt_no_more_leaves_the_shadow() -> None:
    """Who is not announced any more scores no more."""
    fed = Fed(BOTH).take((MODELS, announced(BOTH)), (MODELS, announced(ALONE, learnt=6)))
    assert fed.serving == ("logistic@6", [])


def test_a_forged_record_takes_no_model_away() -> None:
    """Who is champion, and who is in the shadow, stays whatever models it names or leaves out."""
    fed = Fed(BOTH).take((MODELS, announced(BOTH)), (ALIASES, change("twin")))
    assert fed.take((MODELS, announced(ALONE, key=b"x" * 32, learnt=6))).serving == ("twin@5", ["logistic"])
    assert fed.refused == 1


def test_at_the_start_the_newest_sound_model_serves() -> None:
    """A damaged newest record costs the models since the last sound one, and nothing more."""

    async def newest_first() -> AsyncGenerator[Logged, None]:
        for offset, value in ((9, announced(key=b"x" * 32)), (8, b"{"), (5, announced(created_at=2))):
            yield Logged(offset, value)
        raise AssertionError("looked further than it had to")

    fed = Fed()
    asyncio.run(fed.feed._take_newest(MODELS, newest_first()))
    assert [model.created_at for model in fed.swapped] == [2]


def test_the_alias_says_who_is_champion() -> None:
    """The first recipe until an alias names another; the others score in its shadow, at once and with newer models."""
    fed = Fed(BOTH).take((MODELS, announced(BOTH)))
    assert fed.serving == ("logistic@5", ["twin"])
    assert fed.take((ALIASES, change("twin"))).serving == ("twin@5", ["logistic"])
    assert fed.take((MODELS, announced(BOTH, learnt=6))).serving == ("twin@6", ["logistic"])
    assert fed.take((ALIASES, change("logistic"))).serving == ("logistic@6", ["twin"])


def test_there_is_no_other_alias() -> None:
    """All that are not champion are challengers: a record that names one is refused, and changes nothing."""
    fed = Fed(BOTH).take((MODELS, announced(BOTH)))
    assert fed.take((ALIASES, change("twin").replace(b'"champion"', b'"challenger"'))).serving == (
        "logistic@5",
        ["twin"],
    )
    assert fed.refused == 1


def test_the_order_of_alias_and_models_does_not_matter() -> None:
    """At the start the alias may be there before the models it is about."""
    assert Fed(BOTH).take((ALIASES, change("twin")), (MODELS, announced(BOTH))).serving == ("twin@5", ["logistic"])


def test_a_pinned_model_serves_until_the_next_change() -> None:
    """Newer snapshots of its recipe pass it by; the other recipe goes on in the shadow."""
    fed = Fed(BOTH).take((MODELS, announced(BOTH)), (ALIASES, change("twin", snapshot("twin", learnt=3))))
    assert fed.serving == ("twin@3", ["logistic"])
    assert fed.take((MODELS, announced(BOTH, learnt=6))).serving == ("twin@3", ["logistic"])
    assert fed.take((ALIASES, change("twin"))).serving == ("twin@6", ["logistic"])


@pytest.mark.parametrize(
    "value",
    [
        change("stranger"),
        change("logistic", snapshot("logistic", 3, key=b"x" * 32)),
        change("logistic", snapshot("logistic", 3, feature_set="0" * 16)),
        change("logistic", snapshot("binned", 3)),
        b"no change",
        b"",
    ],
    ids=["unknown recipe", "another key", "other features", "another recipe's", "not JSON", "null"],
)
def test_a_champion_that_may_not_be_is_refused(value: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever was the champion stays it, one more is counted and a line names the place."""
    fed = Fed(BOTH).take((MODELS, announced(BOTH)), (ALIASES, change("twin")), (ALIASES, value))
    assert (fed.serving, fed.refused) == (("twin@5", ["logistic"]), 1)
    (line,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert line.startswith("fraud.aliases/0 at offset 9: refused, ")
