"""The binned regression: River's manners, an obvious twin's numbers, and a bounded size whatever it is shown."""

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import checks

from streams.models import bins
from streams.models.binned import BinnedRegression
from streams.models.recipes import ALONE, RECIPES, TOGETHER
from streams.usecases import FRAUD

NAMES, CROSSES = ("a", "b", "c"), (("a", "b"),)

values = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-9, 9).map(float), st.just(math.nan))
examples = st.lists(
    st.tuples(st.tuples(values, values, values), st.integers(0, 1), st.sampled_from([0.5, 1.0, 40.0])), max_size=30
)


@pytest.mark.parametrize("model", [BinnedRegression(), BinnedRegression(("length", "port"), (("port", "length"),))])
def test_river_accepts_it(model: BinnedRegression) -> None:
    """All of River's own checks of a classifier."""
    for check in checks.yield_checks(model):
        check(model.clone())


class Twin:
    """The same belief in a dictionary, one weight a bin, without hashing."""

    def __init__(self, model: BinnedRegression) -> None:
        self.model = model
        self.means: dict = defaultdict(float, {"intercept": model.intercept})
        self.variances: dict = defaultdict(lambda: model.spread)

    def bins(self, row: tuple[float, ...]) -> list:
        told = {name: value for name, value in zip(NAMES, row, strict=True) if not math.isnan(value)}
        crossed = [(cross, bins.CROSSED) for cross in CROSSES if set(cross) <= set(told)]
        alone = [((name,), depth) for name in told for depth in bins.ALONE]
        return ["intercept"] + [
            (names, depth, tuple(self.bin(told[name], depth) for name in names)) for names, depth in crossed + alone
        ]

    @staticmethod
    def bin(value: float, depth: int) -> tuple:
        if abs(value) < 2.0**-20:
            return (0,)
        fraction, power = math.frexp(abs(value))  # 0.5 <= fraction < 1
        return (math.copysign(1, value), power, math.floor((2 * fraction - 1) * 2**depth)) if power > -1022 else (0,)

    def learn(self, row: tuple[float, ...], label: int, weight: float) -> float:
        fields = self.bins(row)
        logit = min(max(sum(self.means[bin_] for bin_ in fields), -30.0), 30.0)
        said = 1 / (1 + math.exp(-logit))
        variance = sum(self.variances[bin_] for bin_ in fields)
        information = weight * said * (1 - said)
        gain = 1 / (1 + information * variance)
        step = min(max(weight * (label - said) * gain, -1 / variance), 1 / variance)
        for bin_ in fields:
            known = self.variances[bin_]
            self.means[bin_] += known * step
            self.variances[bin_] = max(known - known**2 * information * gain, self.model.floor)
        return said


@settings(deadline=None)
@given(examples)
def test_it_says_what_the_twin_says(given: list) -> None:
    """Bins from bits, weights by hashing and the loop over arrays change nothing but the last digits."""
    model = BinnedRegression(NAMES, CROSSES, slot_bits=22)  # so many that no two bins meet
    twin = Twin(model)
    for row, label, weight in given:
        said = model.learn_rows(np.array([row]), np.array([label], np.int8), np.array([weight]))
        assert said[0] == pytest.approx(twin.learn(row, label, weight), rel=1e-9, abs=1e-12)


@settings(deadline=None)
@given(examples)
def test_rows_are_learnt_as_one_after_the_other(given: list) -> None:
    """`learn_rows` says and leaves, bit for bit, what n times `predict_proba_one` and `learn_one` do."""
    whole, single = BinnedRegression(NAMES, CROSSES), BinnedRegression(NAMES, CROSSES)
    rows = np.array([row for row, _, _ in given]).reshape(-1, 3)
    labels, weights = np.array([label for _, label, _ in given], np.int8), np.array([w for _, _, w in given])
    said = whole.learn_rows(rows, labels, weights)
    for row, label, weight, expected in zip(rows.tolist(), labels, weights, said, strict=True):
        x = dict(zip(NAMES, row, strict=True))
        assert single.predict_proba_one(x)[True] == expected
        single.learn_one(x, bool(label), w=weight)
    for name, array in whole.arrays().items():
        assert array.tobytes() == single.arrays()[name].tobytes(), name


def test_a_missing_value_is_not_a_value() -> None:
    """Not told, told NaN, and never heard of: the same score; and it is not the score of 0."""
    model = BinnedRegression(NAMES, CROSSES)
    for a in range(50):
        model.learn_one({"a": a % 2, "b": 1.0}, a % 2 == 1)
    assert model.predict_proba_one({"b": 1.0}) == model.predict_proba_one({"a": math.nan, "b": 1.0, "new": 3})
    assert model.predict_proba_one({"b": 1.0}) != model.predict_proba_one({"a": 0.0, "b": 1.0})


def test_its_size_is_bounded() -> None:
    """However many values it meets, there are no more weights than slots."""
    model = BinnedRegression(NAMES, CROSSES, slot_bits=6)
    rng = np.random.default_rng(1)
    model.learn_rows(rng.normal(size=(5_000, 3)) * 1e9, rng.integers(0, 2, 5_000).astype(np.int8), np.ones(5_000))
    assert model.arrays()["weights"].size <= 65


def test_it_goes_on_learning() -> None:
    """After 200,000 examples of one rule it takes to the opposite within 10,000."""
    model = BinnedRegression(("a",))
    rows = np.random.default_rng(5).uniform(1, 3, (200_000, 1))
    model.learn_rows(rows, (rows[:, 0] > 2).astype(np.int8), np.ones(len(rows)))
    assert model.predict_proba_one({"a": 2.5})[True] > 0.9
    model.learn_rows(rows[:10_000], (rows[:10_000, 0] <= 2).astype(np.int8), np.ones(10_000))
    assert model.predict_proba_one({"a": 2.5})[True] < 0.1


def test_down_sampled_negatives_weigh_what_they_stand_for() -> None:
    """A tenth of the negatives at ten times the weight: the probability stays the true one."""
    rng = np.random.default_rng(2)
    labels = rng.random(60_000) < 0.05
    kept = labels | (rng.random(60_000) < 0.1)
    model = BinnedRegression(("a",))
    weights = np.where(labels, 1.0, 10.0)[kept]
    model.learn_rows(np.ones((int(kept.sum()), 1)), labels[kept].astype(np.int8), weights)
    assert model.predict_proba_one({"a": 1.0})[True] == pytest.approx(0.05, abs=0.015)


def test_a_heavy_example_moves_its_own_log_odds_by_1_at_most() -> None:
    """Whatever its weight."""
    model = BinnedRegression(NAMES)
    model.learn_one(dict.fromkeys(NAMES, 1.0), True, w=1e4)
    said = model.predict_proba_one(dict.fromkeys(NAMES, 1.0))[True]
    assert math.log(said / (1 - said)) - model.intercept < 1.001


def test_other_crosses_are_refused() -> None:
    """A state is of its fields: one of other crosses is not gone on from."""
    with pytest.raises(ValueError, match="crosses"):
        BinnedRegression(NAMES).take_arrays(BinnedRegression(NAMES, CROSSES).arrays())


def test_only_what_is_looked_at_counts() -> None:
    """A feature that is neither looked at alone nor in a cross changes no score."""
    model = BinnedRegression(NAMES, (("a", "b"),), alone=("a",))
    for a in range(50):
        model.learn_one({"a": a % 2, "b": a % 3, "c": a % 2}, a % 2 == 1)
    said = [model.predict_proba_one({"a": 1.0, "b": b, "c": c}) for b, c in ((0.0, 0.0), (0.0, 1.0), (2.0, 0.0))]
    assert said[0] == said[1] != said[2]


@pytest.mark.parametrize("recipe", ["binned", "nimble"])
def test_the_recipe_looks_at_what_is_there(recipe: str) -> None:
    """What a use case does not have is left out; where it has nothing of it, all is looked at. Fraud has all of it."""
    some, other, fraud = (
        RECIPES[recipe].make(names) for names in (("amount", "colour"), ("width", "colour"), FRAUD.features.names)
    )
    assert isinstance(some, BinnedRegression)
    assert isinstance(other, BinnedRegression)
    assert isinstance(fraud, BinnedRegression)
    assert (some.alone, some.crosses) == (("amount",), ())
    assert (other.alone, other.crosses) == (None, ())
    assert (fraud.alone, fraud.crosses) == (ALONE, TOGETHER)
