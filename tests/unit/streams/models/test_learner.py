"""The learner teaches River exactly what it is given, and never lets an unfit value through."""

import math

import pytest

from streams.models.learner import Learner
from streams.models.recipes import RECIPES

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


@pytest.mark.parametrize("weight", [math.nan, math.inf, 0.0, -1.0])
def test_a_wrong_weight_is_refused(weight: float) -> None:
    """A weight is positive and finite."""
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
