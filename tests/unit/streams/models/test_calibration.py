"""Calibration, online: probabilities come true, the ranking stays, and no burst of labels wrecks it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from streams.models.calibration import ENOUGH, FLOATS, Calibrator
from streams.models.evaluation import calibration_error

BATCH = 500

DISTORTIONS = {
    "overconfident": lambda z: 2.0 * z,
    "timid": lambda z: 0.5 * z,
    "as if nine in ten negatives had been left out": lambda z: z + math.log(10),
    "S-shaped": lambda z: 0.7 * np.sign(z) * np.abs(z) ** 1.5,
}


def sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-z))


def stream(n: int, seed: int = 1) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """True log odds around one fraud in forty, and labels that come true."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-5.0, 1.8, n)
    return z, (rng.random(n) < sigmoid(z)).astype(np.int8)


def taught(n: int = 60_000) -> Calibrator:
    z, labels = stream(n)
    calibrator = Calibrator()
    calibrator.learn_many(sigmoid(z), labels, np.ones(n))
    return calibrator


@pytest.mark.parametrize("distortion", DISTORTIONS)
def test_a_miscalibrated_stream_becomes_calibrated(distortion: str) -> None:
    """Scored before they are learnt, the events after 20,000 labels (500 frauds) have an error below 0.4 %."""
    z, labels = stream(60_000)
    raw, calibrator, scores = sigmoid(DISTORTIONS[distortion](z)), Calibrator(), np.empty(len(z))
    for start in range(0, len(z), BATCH):
        rows = slice(start, start + BATCH)
        scores[rows] = calibrator.apply(raw[rows])
        calibrator.learn_many(raw[rows], labels[rows], np.ones(BATCH))
    later = slice(20_000, None)
    before, after = (calibration_error(said[later], labels[later]) for said in (raw, scores))
    assert before > 0.009
    assert after < 0.004


def test_a_calibrated_stream_stays_so() -> None:
    """Where nothing is to be put right, the scores stay within a quarter of their odds where frauds are."""
    scores = np.array([0.01, 0.1, 0.5, 0.9])
    odds = np.log(taught().apply(scores) / (1 - taught().apply(scores))) - np.log(scores / (1 - scores))
    assert np.abs(odds).max() < 0.25


def test_the_ranking_is_unchanged() -> None:
    """AUC and average precision of calibrated scores are those of the raw ones."""
    z, labels = stream(20_000, seed=2)
    raw = sigmoid(2.0 * z)
    calibrator = Calibrator()
    calibrator.learn_many(raw, labels, np.ones(len(z)))
    scores = calibrator.apply(raw)
    assert not np.array_equal(scores, raw)
    assert roc_auc_score(labels, scores) == roc_auc_score(labels, raw)
    assert average_precision_score(labels, scores) == average_precision_score(labels, raw)


def test_identity_until_enough_of_both_classes() -> None:
    """One example fewer than enough changes no bit; the next does."""
    calibrator, scores = Calibrator(), np.array([0.0, 1e-9, 0.3, 1.0])
    labels = np.repeat(np.array([0, 1], np.int8), [ENOUGH, ENOUGH - 1])
    calibrator.learn_many(np.full(len(labels), 0.3), labels, np.ones(len(labels)))
    assert calibrator.apply(scores).tolist() == scores.tolist()
    calibrator.learn(0.3, 1, 1.0)
    assert calibrator.apply(scores).tolist() != scores.tolist()


@pytest.mark.parametrize(("label", "raw"), [(1, 1e-3), (0, 0.9)], ids=["frauds", "legitimate"])
def test_a_burst_of_wrong_labels_is_survived(label: int, raw: float) -> None:
    """100 wrong labels in a row move no score by more than e³ of its odds, and 50,000 right ones undo it."""
    scores = np.array([1e-4, 1e-3, 1e-2, 0.1, 0.5, 0.9])

    def log_odds(calibrator: Calibrator) -> NDArray[np.float64]:
        said = calibrator.apply(scores)
        return np.log(said / (1 - said))

    calibrator = taught()
    before = log_odds(calibrator)
    calibrator.learn_many(np.full(100, raw), np.full(100, label, np.int8), np.ones(100))
    assert np.abs(log_odds(calibrator) - before).max() < 3.0
    z, labels = stream(50_000, seed=3)
    said = calibrator.apply(sigmoid(z))
    burst = calibration_error(said, labels)
    calibrator.learn_many(sigmoid(z), labels, np.ones(len(z)))
    assert calibration_error(calibrator.apply(sigmoid(z)), labels) < min(burst, 0.005)


finite = st.floats(0.0, 1.0)
examples = st.lists(
    st.tuples(
        st.one_of(finite, st.sampled_from([math.nan, math.inf, -1.0, 2.0])),
        st.sampled_from([0, 1]),
        st.sampled_from([1.0, 0.5, 100.0, 1e100, 0.0, -1.0, math.nan]),
    ),
    max_size=300,
)


@given(examples=examples, copies=st.integers(1, 30), scores=st.lists(finite, min_size=2, max_size=10))
def test_whatever_it_learns_it_is_monotone_bounded_and_stored_whole(
    examples: list[tuple[float, int, float]], copies: int, scores: list[float]
) -> None:
    """Any scores, labels and weights: results are in [0, 1], in the order of the raw ones, and survive a restart."""
    calibrator = Calibrator()
    columns = tuple(zip(*(examples * copies), strict=True)) or ((), (), ())
    calibrator.learn_many(np.array(columns[0], float), np.array(columns[1], np.int8), np.array(columns[2], float))
    said = calibrator.apply(np.array(sorted(scores)))
    assert np.isfinite(said).all()
    assert ((said >= 0) & (said <= 1)).all()
    assert (np.diff(said) >= -1e-15).all()
    again = Calibrator.from_array(calibrator.to_array())
    assert again.apply(np.array(sorted(scores))).tolist() == said.tolist()


@given(cut=st.integers(0, 400))
def test_one_by_one_at_once_or_after_a_restart(cut: int) -> None:
    """How the examples are divided changes no bit of the state."""
    z, labels = stream(400, seed=4)
    raw, weights = sigmoid(z), np.linspace(0.5, 2.0, 400)
    whole, parts = Calibrator(), Calibrator()
    whole.learn_many(raw, labels, weights)
    parts.learn_many(raw[:cut], labels[:cut], weights[:cut])
    parts = Calibrator.from_array(parts.to_array())
    for example in zip(raw[cut:].tolist(), labels[cut:].tolist(), weights[cut:].tolist(), strict=True):
        parts.learn(*example)
    assert parts.to_array().tobytes() == whole.to_array().tobytes()


@pytest.mark.parametrize("unfit", [(math.nan, 1.0), (math.inf, 1.0), (0.5, 0.0), (0.5, -1.0), (0.5, math.nan)])
def test_unfit_examples_leave_no_mark(unfit: tuple[float, float]) -> None:
    """No finite score or no positive weight: nothing changes."""
    raw, weight = unfit
    calibrator = taught(1000)
    before = calibrator.to_array().tobytes()
    calibrator.learn(raw, 1, weight)
    assert calibrator.to_array().tobytes() == before


def test_what_is_no_score_stays_none() -> None:
    """What is no probability comes out as NaN, for the caller to see, also where nothing is changed yet."""
    for calibrator in taught(), Calibrator():
        assert np.isnan(calibrator.apply(np.array([math.nan, math.inf, -math.inf, 1.1, -0.1]))).all()


@pytest.mark.parametrize(
    "state",
    [np.ones(FLOATS - 1), np.full(FLOATS, math.nan), np.full(FLOATS, 100.0), -np.ones(FLOATS)],
    ids=["short", "NaN", "too large", "falling"],
)
def test_no_calibrator_of_other_numbers(state: NDArray[np.float64]) -> None:
    """What `to_array` cannot have returned is refused."""
    with pytest.raises(ValueError, match="calibrator"):
        Calibrator.from_array(state)
