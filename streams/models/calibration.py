"""From a model's raw scores to probabilities, learnt online: beta calibration by a Newton step an example.

    log odds = a ln(raw) − b ln(1 − raw) + c,    a, b > 0

is monotone in the raw score, so that no ranking changes, and is the identity at a = b = 1, c = 0 (Kull, Silva Filho
and Flach, *Beta calibration*, AISTATS 2017). The curvature forgets slowly, so that the parameters follow a drifting
model, and is pulled towards the identity. It is the mean of the expected and the observed squared slopes: as a
surprise stiffens what it pushes against, a burst of wrong labels moves little (Hazan et al., online Newton step, 2007).
"""

from typing import Self

import numpy as np
from numpy.typing import NDArray

from streams.kernels import F64, FLOAT, I8, OUT_F64, VOID, kernel

ENOUGH = 50
"""Examples of each class, without which a calibrator changes nothing."""

MEMORY = 100_000
"""Examples after which one counts 1/e; at a fraud rate of 0.8 % that is 800 frauds."""

STEP = 0.05
"""What one example may move a parameter by at most: what one positive among twenty does to `c`."""

HEAVIEST = 100.0
"""A heavier example counts as this: it would stiffen the curvature for ever."""

LOW, HIGH = 0.2, 5.0
"""The bounds of a and b; c stays within ± HIGH."""

EDGE = 1e-13
"""Raw scores and results closer than this to 0 or 1 are taken as this; it is where River's sigmoid saturates."""

LEARNT_FROM = 1e-5
"""Scores below it, and above 1 − it, are learnt from as this: it bounds the leverage of a confident error."""

SHAPE, SHIFT = 100.0, 5.0
"""The curvature of the identity's pull on a and b, and on c; an example at 0.5 bends c by 0.25.

A wrong level is common (negatives left out, a rate that changed) and soon learnt. A wrong shape takes many frauds to
tell from a model that is just being overtaken by a change of the fraud.
"""

A, B, C, CURVATURE, POSITIVES, NEGATIVES, FLOATS = 0, 1, 2, 3, 9, 10, 11
"""Where in the state what is; the curvature's upper triangle takes six places."""


class Calibrator:
    """Turns raw scores into probabilities that come true; the identity until it has seen enough of each class.

    Deterministic in the examples and their order. Examples without a finite score or a positive weight are ignored.

    >>> calibrator = Calibrator()
    >>> calibrator.learn(0.2, 1)
    >>> calibrator.apply(np.array([0.2, 0.9])).tolist()
    [0.2, 0.9]
    """

    def __init__(self) -> None:
        self._state = np.zeros(FLOATS)
        self._state[[A, B]] = 1.0
        self._state[[CURVATURE, CURVATURE + 3, CURVATURE + 5]] = SHAPE, SHAPE, SHIFT

    @classmethod
    def from_array(cls, state: NDArray[np.float64]) -> Self:
        """Return the calibrator of a `to_array`; raise ValueError where it is none."""
        if state.shape != (FLOATS,) or not np.isfinite(state).all():
            raise ValueError(f"a calibrator has {FLOATS} finite numbers")
        if not (state[:C] >= LOW).all() or not (np.abs(state[: C + 1]) <= HIGH).all():
            raise ValueError("a calibrator's parameters are out of their bounds")
        calibrator = cls()
        calibrator._state[:] = state
        return calibrator

    def to_array(self) -> NDArray[np.float64]:
        """Return all there is to it, float64[FLOATS], a copy."""
        return self._state.copy()

    def learn(self, raw: float, label: int, weight: float = 1.0) -> None:
        """Learn that an event with the score `raw` turned out to be `label` (0 or 1)."""
        self.learn_many(np.array([raw]), np.array([label], np.int8), np.array([weight]))

    def learn_many(self, raw: NDArray[np.float64], labels: NDArray[np.int8], weights: NDArray[np.float64]) -> None:
        """Learn n examples in their order: float64[n], int8[n], float64[n]."""
        _learn(self._state, np.ascontiguousarray(raw), np.ascontiguousarray(labels), np.ascontiguousarray(weights))

    def apply(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the calibrated scores, float64[n] in [0, 1]; NaN for what is no probability."""
        scores = np.empty(len(raw))
        _apply(self._state, np.ascontiguousarray(raw), scores)
        return scores


@kernel(FLOAT(F64, FLOAT))
def _calibrated(state: NDArray[np.float64], raw: float) -> float:
    """Return one raw score calibrated by a calibrator's state, NaN where it is no probability."""
    if not 0.0 <= raw <= 1.0:
        return np.nan
    if state[POSITIVES] < ENOUGH or state[NEGATIVES] < ENOUGH:
        return raw
    p = min(max(raw, EDGE), 1.0 - EDGE)
    log_odds = state[A] * np.log(p) - state[B] * np.log1p(-p) + state[C]
    score: float = 1.0 / (1.0 + np.exp(-log_odds))
    return min(max(score, EDGE), 1.0 - EDGE)


@kernel(VOID(F64, F64, OUT_F64))
def _apply(state: NDArray[np.float64], raw: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    for i in range(raw.size):
        out[i] = _calibrated(state, raw[i])


@kernel(VOID(OUT_F64, F64, I8, F64))
def _learn(
    state: NDArray[np.float64], raw: NDArray[np.float64], labels: NDArray[np.int8], weights: NDArray[np.float64]
) -> None:
    """Take one Newton step an example on its log loss and the pull, forgetting a MEMORY-th of what was before."""
    forget = 1.0 / MEMORY
    shape, shift = forget * SHAPE, forget * SHIFT
    h = state[CURVATURE:POSITIVES]
    for i in range(raw.size):
        if not np.isfinite(raw[i]) or not weights[i] > 0.0:
            continue
        weight = min(weights[i], HEAVIEST)
        state[POSITIVES if labels[i] == 1 else NEGATIVES] += weight
        p = min(max(raw[i], LEARNT_FROM), 1.0 - LEARNT_FROM)
        x, y = np.log(p), -np.log1p(-p)
        said = 1.0 / (1.0 + np.exp(-(state[A] * x + state[B] * y + state[C])))
        bend = weight * 0.5 * (said * (1.0 - said) + (said - labels[i]) ** 2)
        for j in range(6):
            h[j] *= 1.0 - forget
        h[0] += bend * x * x + shape
        h[1] += bend * x * y
        h[2] += bend * x
        h[3] += bend * y * y + shape
        h[4] += bend * y
        h[5] += bend + shift
        slope = weight * (said - labels[i])
        g0, g1 = slope * x + shape * (state[A] - 1.0), slope * y + shape * (state[B] - 1.0)
        g2 = slope + shift * state[C]
        # Cramer's rule: h is positive definite, as the pull never leaves it.
        m0, m1, m2 = h[3] * h[5] - h[4] * h[4], h[2] * h[4] - h[1] * h[5], h[1] * h[4] - h[2] * h[3]
        m4, m5, m8 = h[0] * h[5] - h[2] * h[2], h[1] * h[2] - h[0] * h[4], h[0] * h[3] - h[1] * h[1]
        determinant = h[0] * m0 + h[1] * m1 + h[2] * m2
        s0 = (m0 * g0 + m1 * g1 + m2 * g2) / determinant
        s1 = (m1 * g0 + m4 * g1 + m5 * g2) / determinant
        s2 = (m2 * g0 + m5 * g1 + m8 * g2) / determinant
        scale = min(1.0, STEP / max(abs(s0), abs(s1), abs(s2), 1e-300))
        state[A] = min(max(state[A] - scale * s0, LOW), HIGH)
        state[B] = min(max(state[B] - scale * s1, LOW), HIGH)
        state[C] = min(max(state[C] - scale * s2, -HIGH), HIGH)
