"""The compiled scorer is River's own `predict_proba_one`, to 1e-12, whatever the model has seen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import compose, linear_model, naive_bayes, preprocessing

from streams.models.compiled import explainer, scorer
from streams.models.recipes import RECIPES, Model

NAMES = ("a", "b", "c", "d")
COMPILED = ("binned", "nimble", "logistic")

# Halves, so that no deviation is so small that two scaled values cancel all but a few digits of the logit.
values = st.integers(-50, 50).map(lambda halves: halves / 2)
rows = st.lists(st.tuples(values, values, values, values), min_size=1, max_size=8)
# A learnt example may lack features, and may have one that is never scored.
examples = st.lists(
    st.tuples(st.dictionaries(st.sampled_from([*NAMES, "elsewhere"]), values), st.booleans()), max_size=30
)


def river_says(model: Model, scored: list[tuple[float, ...]]) -> np.ndarray:
    probabilities = (model.predict_proba_one(dict(zip(NAMES, row, strict=True))) for row in scored)
    return np.array([probability.get(True, 0.0) for probability in probabilities])


@pytest.mark.parametrize("recipe", RECIPES)
@settings(deadline=None)
@given(examples=examples, scored=rows)
def test_equals_river(recipe: str, examples: list, scored: list) -> None:
    """Fresh, half-taught, with features unseen or never varying: the compiled score is River's."""
    model = RECIPES[recipe].make(NAMES)
    for x, y in examples:
        model.learn_one(x, y)
    compiled = scorer(model, NAMES)(np.array(scored))
    np.testing.assert_allclose(compiled, river_says(model, scored), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "model",
    [
        preprocessing.StandardScaler(with_std=False) | linear_model.LogisticRegression(),
        preprocessing.StandardScaler(window_size=3) | linear_model.LogisticRegression(),
        preprocessing.MinMaxScaler() | linear_model.LogisticRegression(),
        compose.Select("a") | linear_model.LogisticRegression(),
        linear_model.LogisticRegression(),
        naive_bayes.GaussianNB(),
    ],
    ids=repr,
)
def test_other_models_are_called_as_they_are(model: Model) -> None:
    """A model that only looks like the compiled kind is never compiled into something else."""
    scored = [(1.0, 2.0, 3.0, 4.0), (0.5, -2.0, 0.0, 1.0)]
    for row, label in zip([*scored, (3.0, 3.0, 3.0, 3.0)], (True, False, True), strict=True):
        model.learn_one(dict(zip(NAMES, row, strict=True)), label)
    np.testing.assert_allclose(scorer(model, NAMES)(np.array(scored)), river_says(model, scored), rtol=0, atol=1e-12)


@pytest.mark.parametrize("label", [True, False])
def test_saturates_as_river_does(label: bool) -> None:
    """Past a logit of 30 both say exactly 0 or 1."""
    model = RECIPES["logistic"].make(NAMES)
    for value in (0.0, 1.0, 2.0):
        model.learn_one(dict.fromkeys(NAMES, value), label)
    scored = [(1e9,) * 4, (-1e9,) * 4]
    compiled = scorer(model, NAMES)(np.array(scored))
    assert set(compiled.tolist()) == {0.0, 1.0}
    assert compiled.tolist() == river_says(model, scored).tolist()


@pytest.mark.parametrize("recipe", COMPILED)
def test_a_compiled_scorer_stays_as_it_was(recipe: str) -> None:
    """Learning on does not change the scores of a scorer that was made before."""
    model = RECIPES[recipe].make(NAMES)
    model.learn_one(dict.fromkeys(NAMES, 1.0), True)
    model.learn_one(dict.fromkeys(NAMES, 2.0), False)
    score, row = scorer(model, NAMES), np.array([[3.0, 1.0, 2.0, 0.0]])
    before = score(row)
    model.learn_one(dict.fromkeys(NAMES, 5.0), True)
    assert score(row) == before
    assert scorer(model, NAMES)(row) != before


def test_a_score_does_not_depend_on_its_batch() -> None:
    """Alone or among others, in whatever memory layout: the same bits."""
    model, rng = RECIPES["logistic"].make(NAMES), np.random.default_rng(7)
    matrix = rng.normal(size=(200, 4))
    for row in matrix.tolist():
        model.learn_one(dict(zip(NAMES, row, strict=True)), row[0] + row[1] > 0)
    score = scorer(model, NAMES)
    together = score(matrix)
    assert [score(matrix[i : i + 1])[0] for i in range(200)] == together.tolist()
    assert score(np.asfortranarray(matrix)).tolist() == together.tolist()


def test_no_rows_no_scores() -> None:
    """An empty batch is a batch."""
    assert scorer(RECIPES["logistic"].make(NAMES), NAMES)(np.zeros((0, 4))).shape == (0,)


@pytest.mark.parametrize("recipe", RECIPES)
@settings(deadline=None)
@given(examples=examples, scored=rows)
def test_effects_are_by_feature_and_mutate_nothing(recipe: str, examples: list, scored: list) -> None:
    """One number a value, finite, and the model says what it said before."""
    model = RECIPES[recipe].make(NAMES)
    for x, y in examples:
        model.learn_one(x, y)
    before = river_says(model, scored)
    effects = explainer(model, NAMES).effects(np.array(scored))
    assert effects.shape == (len(scored), len(NAMES))
    assert np.isfinite(effects).all()
    assert river_says(model, scored).tolist() == before.tolist()


@pytest.mark.parametrize("recipe", COMPILED)
def test_the_feature_that_decides_is_the_reason(recipe: str) -> None:
    """Of four features one tells the class: it has the largest effect, up for the one class and down for the other."""
    model, rng = RECIPES[recipe].make(NAMES), np.random.default_rng(11)
    for row in rng.normal(size=(3_000, 4)).tolist():
        model.learn_one(dict(zip(NAMES, row, strict=True)), row[2] > 0)
    effects = explainer(model, NAMES).effects(np.array([[0.1, 0.2, 1.5, -0.1], [0.1, 0.2, -1.5, -0.1]]))
    assert np.abs(effects).argmax(axis=1).tolist() == [2, 2]
    assert effects[0, 2] > 0 > effects[1, 2]


def test_linear_effects_and_intercept_are_the_log_odds() -> None:
    """What the features do adds up to what the model says."""
    model, rng = RECIPES["logistic"].make(NAMES), np.random.default_rng(3)
    for row in rng.normal(size=(500, 4)).tolist():
        model.learn_one(dict(zip(NAMES, row, strict=True)), row[0] > 1)
    row = rng.normal(size=(1, 4))
    said = scorer(model, NAMES)(row)[0]
    total = explainer(model, NAMES).effects(row).sum() + model["LogisticRegression"].intercept
    assert total == pytest.approx(np.log(said / (1 - said)), abs=1e-9)
