"""What every recipe's model must be: pure when it scores, at ease with what it has not seen, bounded, its own.

That its compiled scorer equals it stands in `test_compiled.py`, that it can be stored in `test_storage.py`.
"""

import math
import pickle
from typing import Any

import numpy as np
import pytest

from streams.models import recipes
from streams.models.compiled import explainer, scorer
from streams.models.recipes import RECIPES, Model
from streams.models.storage import dump, load

NAMES = ("amount", "count", "rate")
X = {"amount": 30.0, "count": 3.0, "rate": 0.1}

every = pytest.mark.parametrize("recipe", RECIPES)


def taught(recipe: str, examples: int = 300) -> Model:
    model, rng = RECIPES[recipe].make(NAMES), np.random.default_rng(8)
    for row in rng.lognormal(1, 1, (examples, 3)).tolist():
        model.learn_one(dict(zip(NAMES, row, strict=True)), row[0] > 8)
    return model


def said(model: Model, x: dict) -> float:
    return model.predict_proba_one(x).get(True, 0.0)


@every
def test_scoring_mutates_nothing(recipe: str) -> None:
    """Scored and explained in every way, the model's bytes are what they were, and so is what it was asked."""
    model, x = taught(recipe), dict(X)
    before = dump(model)
    said(model, x)
    rows = np.array([list(X.values())])
    scorer(model, NAMES)(rows)
    explainer(model, NAMES).effects(rows)
    assert dump(model) == before
    assert (x, rows.tolist()) == (X, [list(X.values())])


@every
@pytest.mark.parametrize("x", [{}, {"amount": 30.0}, X | {"new": 1.0}, dict.fromkeys(NAMES, 0.0)], ids=str)
def test_what_it_has_not_seen_is_no_harm(recipe: str, x: dict) -> None:
    """A feature missing, one never heard of, or none at all: a probability, before and after learning it."""
    for model in (RECIPES[recipe].make(NAMES), taught(recipe)):
        assert 0.0 <= said(model, x) <= 1.0
        model.learn_one(x, True)
        assert 0.0 <= said(model, X) <= 1.0


@every
@pytest.mark.parametrize("value", [1e15, -1e15, 1e-300, -0.0])
def test_what_is_extreme_leaves_it_finite(recipe: str, value: float) -> None:
    """The largest values that a learner lets through, and the smallest there are."""
    model = taught(recipe)
    for label in (True, False, True):
        model.learn_one(dict.fromkeys(NAMES, value), label)
    assert math.isfinite(said(model, X))
    assert math.isfinite(said(model, dict.fromkeys(NAMES, value)))


@every
def test_its_memory_is_bounded(recipe: str) -> None:
    """Four times the examples do not make it twice as large, or it is a few trees of a megabyte or so."""
    small, large = (len(dump(taught(recipe, examples))) for examples in (1_500, 6_000))
    assert large < max(2 * small, 5_000_000)


@pytest.mark.parametrize("recipe", ["tree", "forest"])
def test_a_tree_is_held_to_its_size_whatever_examples_weigh(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """River looks at multiples of the weight seen, which weights of 7 step over: here the count of examples tells."""
    monkeypatch.setattr(recipes, "LARGEST_TREE", 0.001)  # MiB
    monkeypatch.setattr(recipes, "MEASURED_EVERY", 200)
    model = RECIPES[recipe].make(NAMES)
    whole: Any = model[-1]  # type: ignore[index]
    given_up = []
    for row in np.random.default_rng(8).lognormal(1, 1, (200, 3)).tolist():
        model.learn_one(dict(zip(NAMES, row, strict=True)), row[0] > 8, w=7.0)
        given_up.append(sum(one._n_inactive_leaves for one in (whole if recipe == "forest" else [whole])))
    assert max(given_up[:-1]) == 0 < given_up[-1]


@every
def test_a_snapshot_is_its_own(recipe: str) -> None:
    """What was stored, and what was compiled, stays as it was while the model learns on."""
    model = taught(recipe)
    stored = dump(model)
    before = said(model, X)
    for _ in range(50):
        model.learn_one(X, before < 0.5)
    assert said(model, X) != before
    assert said(load(recipe, NAMES, stored), X) == before


@every
def test_it_is_deterministic(recipe: str) -> None:
    """The same examples in the same order make the same model."""
    rows = np.random.default_rng(9).lognormal(1, 1, (200, 3))
    first, second = (scorer(taught(recipe), NAMES)(rows) for _ in range(2))
    assert first.tobytes() == second.tobytes()


@every
def test_an_example_counts_by_its_weight(recipe: str) -> None:
    """Ten times the weight moves it further."""
    light, heavy = taught(recipe), taught(recipe)
    light.learn_one(X, False, w=1.0)
    heavy.learn_one(X, False, w=10.0)
    assert said(heavy, X) < said(taught(recipe), X)
    assert said(heavy, X) < said(light, X)


@every
def test_it_can_be_copied(recipe: str) -> None:
    """River's models and ours can be pickled, whatever way they are stored."""
    model = taught(recipe)
    assert said(pickle.loads(pickle.dumps(model)), X) == said(model, X)
