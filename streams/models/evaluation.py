"""What scores were worth, beyond what scikit-learn has: calibration error and card precision."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BINS = 20


class CalibrationBins(NamedTuple):
    """Scores sorted and cut into bins of equal mass: float64[bins] means of score and label, and how many each."""

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    counts: NDArray[np.float64]


def calibration_bins(
    scores: NDArray[np.float64],
    labels: NDArray[np.int8],
    bins: int = BINS,
    weights: NDArray[np.float64] | None = None,
) -> CalibrationBins:
    """Return what was predicted and what came true, in at most `bins` bins; equal scores share one.

    A row counts once, or as often as its weight says.

    >>> calibration_bins(np.array([0.1, 0.3, 0.8, 0.6]), np.array([0, 0, 1, 1], np.int8), 2)
    CalibrationBins(predicted=array([0.2, 0.7]), observed=array([0., 1.]), counts=array([2., 2.]))
    """
    order = np.argsort(scores, kind="stable")
    ordered, truth = scores[order], labels[order]
    mass = np.ones(len(scores)) if weights is None else weights[order]
    total = np.cumsum(mass)
    cuts = np.searchsorted(total, np.arange(1, bins) * total[-1] / bins, side="right")
    # Tied scores are one prediction: a cut among them moves to where they begin.
    begins = np.unique(np.concatenate([[0], np.searchsorted(ordered, ordered[np.minimum(cuts, len(scores) - 1)])]))
    counts = np.add.reduceat(mass, begins)
    predicted, observed = (np.add.reduceat(mass * values, begins) / counts for values in (ordered, truth))
    return CalibrationBins(predicted, observed, counts)


def calibration_error(
    scores: NDArray[np.float64],
    labels: NDArray[np.int8],
    bins: int = BINS,
    weights: NDArray[np.float64] | None = None,
) -> float:
    """Return the expected calibration error, the mean distance of observed from predicted over bins of equal mass;
    NaN of nothing.

    Naeini, Cooper, Hauskrecht: Obtaining Well Calibrated Probabilities Using Bayesian Binning (2015).

    >>> round(calibration_error(np.array([0.1, 0.3, 0.8, 0.6]), np.array([0, 0, 1, 1], np.int8), 2), 9)
    0.25
    """
    if not len(scores):
        return float("nan")
    predicted, observed, counts = calibration_bins(scores, labels, bins, weights)
    return float(np.abs(predicted - observed) @ counts / counts.sum())


def card_precision(
    days: NDArray[np.int64], cards: NDArray[np.int64], scores: NDArray[np.float64], labels: NDArray[np.int8], k: int
) -> float:
    """Return Card Precision@k: of the `k` entities whose highest score of the day is highest, the share that are
    compromised that day, averaged over the days; one that was found is left out of the later days.

    All int64 or float64[n], `cards` numbering the entities. Le Borgne et al.: Reproducible Machine Learning for
    Credit Card Fraud Detection, chapter 4.

    >>> days, cards = np.array([0, 0, 1, 1]), np.array([7, 8, 7, 8])
    >>> card_precision(days, cards, np.array([0.9, 0.2, 0.9, 0.1]), np.array([1, 0, 1, 1], np.int8), 1)
    1.0
    """
    found = np.empty(0, np.int64)
    shares = []
    order = np.argsort(days, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(days[order])) + 1):
        today = rows[~np.isin(cards[rows], found)]
        entities, entity = np.unique(cards[today], return_inverse=True)
        highest, compromised = np.full(entities.size, -np.inf), np.zeros(entities.size, np.int64)
        np.maximum.at(highest, entity, scores[today])
        np.maximum.at(compromised, entity, labels[today])
        top = np.argsort(-highest, kind="stable")[:k]
        hits = entities[top[compromised[top] == 1]]
        shares.append(hits.size / k)
        found = np.concatenate([found, hits])
    return float(np.mean(shares)) if len(days) else float("nan")
