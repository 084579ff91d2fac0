"""The learner teaches River exactly what it is given, and never lets an unfit value through."""

import math
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.models.calibration import Calibrator
from streams.models.learner import HEAVIEST, NOTHING, Learner
from streams.models.recipes import RECIPES, Recipe
from streams.usecases import FRAUD
from tests.weights import weights

NAMES = ("amount", "count")
GOOD = {"amount": 3.0, "count": 2.0}


def taught(recipe: str = "logistic") -> Learner:
    learner = Learner(recipe, NAMES)
    for amount in range(20):
        assert learner.learn({"amount": float(amount), "count": 1.0 + amount % 3}, amount > 12)
    return learner


@pytest.mark.parametrize("recipe", RECIPES)
def test_it_is_river_that_learns(recipe: str) -> None:
    """The learner's model is the recipe after the same examples, weights included."""
    learner, model = taught(recipe), RECIPES[recipe].make(NAMES)
    learner.learn(GOOD, 1, weight=2.5)
    for amount in range(20):
        model.learn_one({"amount": float(amount), "count": 1.0 + amount % 3}, amount > 12)
    model.learn_one(GOOD, True, w=2.5)
    assert learner.model.predict_proba_one(GOOD) == model.predict_proba_one(GOOD)
    assert learner.model_id == f"{recipe}@21"


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 1e200, -1e200], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_poison_never_reaches_the_model(recipe: str, poison: float, name: str) -> None:
    """One NaN would stay in a scaler for ever: it is refused, counted, and changes nothing."""
    learner = taught(recipe)
    before = learner.model.predict_proba_one(GOOD)
    assert not learner.learn({**GOOD, name: poison}, 1)
    assert (learner.examples_learnt, learner.examples_refused) == (20, 1)
    assert learner.model.predict_proba_one(GOOD) == before


@pytest.mark.parametrize("weight", [math.nan, math.inf, 0.0, -1.0, 2 * HEAVIEST])
def test_a_wrong_weight_is_refused(weight: float) -> None:
    """A weight is positive, and none that sampling cannot have made."""
    learner = taught()
    assert not learner.learn(GOOD, 1, weight=weight)
    assert learner.examples_learnt == 20


def test_a_missing_feature_is_refused_and_a_further_one_ignored() -> None:
    """The model's inputs are the declared features, all of them and no others."""
    learner = taught()
    assert not learner.learn({"amount": 1.0}, 0)
    assert learner.learn({**GOOD, "country": math.nan}, 0)
    assert learner.examples_refused == 1


def test_it_learns_something() -> None:
    """After a few hundred examples of an obvious rule, the scores follow it."""
    learner = Learner("logistic", NAMES)
    for step in range(2000):
        learner.learn({"amount": float(step % 10), "count": 1.0}, step % 10 > 7)
    low, high = ({"amount": amount, "count": 1.0} for amount in (1.0, 9.0))
    assert learner.model.predict_proba_one(low)[True] < 0.1 < learner.model.predict_proba_one(high)[True]


def content(learner: Learner) -> tuple[object, ...]:
    """Everything that a learner has come to."""
    return weights(learner.model), learner.calibrator.to_array().tobytes(), learner.guard, learner.model_id


@pytest.mark.parametrize("recipe", FRAUD.recipes)  # equal pickles of trees may differ in their bytes
@given(cuts=st.lists(st.integers(0, 700), max_size=6), seed=st.integers(0, 5))
@settings(deadline=None, max_examples=8)
def test_rows_are_learnt_as_one_after_the_other(recipe: str, cuts: list[int], seed: int) -> None:
    """However examples are cut into batches, corrections and unfit ones among them: the same bits of model, calibrator
    and guard."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(700, 2))
    labels = (rng.random(700) < 0.3).astype(np.int8)
    given_weights = rng.choice([1.0, 4.0], 700)
    corrects = np.where(rng.random(700) < 0.05, 1 - labels, NOTHING).astype(np.int8)
    rows[rng.random(700) < 0.02] = np.inf
    batched, single = Learner(recipe, NAMES), Learner(recipe, NAMES)
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), 700], strict=True):
        part = slice(start, stop)
        batched.learn_rows(rows[part], labels[part], given_weights[part], corrects[part])
    for row, label, weight, old in zip(rows.tolist(), labels.tolist(), given_weights.tolist(), corrects, strict=True):
        x = dict(zip(NAMES, row, strict=True))
        single.learn(x, label, weight, None if old == NOTHING else int(old))
    assert content(batched) == content(single)
    assert batched.examples_refused == single.examples_refused > 0


def test_the_calibrator_learns_what_was_said_before_each_example() -> None:
    """Predicted, calibrated, then learnt."""
    learner, model, calibrator = taught(), RECIPES["logistic"].make(NAMES), Calibrator()
    for amount in range(20):
        x = {"amount": float(amount), "count": 1.0 + amount % 3}
        calibrator.learn(model.predict_proba_one(x)[True], int(amount > 12))
        model.learn_one(x, amount > 12)
    assert learner.calibrator.to_array().tobytes() == calibrator.to_array().tobytes()


class Rate:
    """The probability of the label, whatever the features: a logistic regression without any."""

    def __init__(self) -> None:
        self.log_odds = 0.0

    def predict_proba_one(self, _: dict[str, float]) -> dict[bool, float]:
        said = 1 / (1 + math.exp(-self.log_odds))
        return {False: 1 - said, True: said}

    def learn_one(self, x: dict[str, float], y: bool, w: float = 1.0) -> None:
        self.log_odds -= 0.02 * w * (self.predict_proba_one(x)[True] - y)


@pytest.mark.parametrize("kept", [1.0, 0.25], ids=["all negatives", "a quarter of them"])
@pytest.mark.parametrize("late", [0.3, 1.0])
def test_late_positives_make_up_for_their_assumed_negatives(
    monkeypatch: pytest.MonkeyPatch, late: float, kept: float
) -> None:
    """Of 40 % positives many are first learnt as negatives: with the corrections the learnt rate is the true one,
    model's and calibrator's, and without making up for it, it is not."""
    monkeypatch.setitem(RECIPES, "rate", Recipe("rate", lambda names: Rate()))
    learnt = {}
    for corrected in (True, False):
        rng, learner = np.random.default_rng(4), Learner("rate", NAMES)
        waiting: deque[bool] = deque()  # of each positive that will be said later, whether it was learnt as negative
        rates = []
        for _ in range(10_000):
            positive, is_late, is_kept = rng.random() < 0.4, rng.random() < late, rng.random() < kept
            if positive and is_late:
                waiting.append(is_kept)
            if positive and not is_late:
                learner.learn(GOOD, 1)
            elif is_kept:
                learner.learn(GOOD, 0, 1 / kept)
            if len(waiting) > 100 or (waiting and rng.random() < 0.01):
                if waiting.popleft() and corrected:
                    learner.learn(GOOD, 1, 1 / kept, corrects=0)
                else:
                    learner.learn(GOOD, 1)
            rates.append(learner.model.predict_proba_one(GOOD)[True])
        learnt[corrected] = float(np.mean(rates[4_000:]))
        if corrected:
            calibrated = learner.calibrator.apply(np.array(rates[4_000:]))
            assert float(np.mean(calibrated)) == pytest.approx(0.4, abs=0.05)
    assert learnt[True] == pytest.approx(0.4, abs=0.02)
    assert learnt[False] < 0.4 / (1 + 0.4 * late) + 0.02


def test_a_correction_of_a_positive_takes_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the positives are withdrawn: what remains is learnt."""
    monkeypatch.setitem(RECIPES, "rate", Recipe("rate", lambda names: Rate()))
    rng, learner, rates = np.random.default_rng(4), Learner("rate", NAMES), []
    for _ in range(10_000):
        said_fraud, withdrawn = rng.random() < 0.3, rng.random() < 1 / 3
        learner.learn(GOOD, int(said_fraud))
        if said_fraud and withdrawn:
            learner.learn(GOOD, 0, corrects=1)
        rates.append(learner.model.predict_proba_one(GOOD)[True])
    assert float(np.mean(rates[4_000:])) == pytest.approx(0.2, abs=0.02)
