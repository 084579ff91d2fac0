"""From a River model to a function over a batch: linear models as one loop over arrays (D7)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from river import compose, linear_model, optim, preprocessing

from streams.kernels import F64, F64_2D, FLOAT, OUT_F64, VOID, kernel
from streams.models.binned import BinnedRegression
from streams.models.recipes import Model

Scorer = Callable[[NDArray[np.float64]], NDArray[np.float64]]

SATURATED = 30.0
"""Beyond this logit River's sigmoid says 0 or 1."""

LEAST = 1e-6
"""A probability nearer to 0 or 1 counts as this near, where log odds are compared."""


class Explainer(Protocol):
    """Says which features moved a score."""

    def effects(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return by how much each feature moves the log odds from where it usually is, float64[n, names]."""


def scorer(model: Model, names: tuple[str, ...]) -> Scorer:
    """Return the probability of the positive class for rows of features float64[n, names], float64[n].

    Equals the model's `predict_proba_one` to 1e-12. A compiled scorer keeps scoring as the model was when
    compiled; a model that cannot be compiled is called row by row, as it is at the time.

    >>> from streams.models.recipes import RECIPES
    >>> scorer(RECIPES["logistic"].make(("amount",)), ("amount",))(np.array([[1.0], [9.0]])).round(3).tolist()
    [0.018, 0.018]
    """
    if isinstance(model, BinnedRegression):
        return model.frozen(names).score
    linear = _linear(model, names)
    return linear.score if linear else _row_by_row(model, names)


def explainer(model: Model, names: tuple[str, ...]) -> Explainer:
    """Return what moves the scores of `model` as it is now, by feature.

    For bins: the weights of a value's bins less what they usually are. For scaled regressions: the weight times the
    distance from the mean. For all others: how the log odds change when the model is not told the feature.
    """
    if isinstance(model, BinnedRegression):
        return model.frozen(names)
    return _linear(model, names) or _Untold(model, names)


@dataclass(frozen=True)
class _Linear:
    """A scaled logistic regression as arrays."""

    means: NDArray[np.float64]
    deviations: NDArray[np.float64]
    weights: NDArray[np.float64]
    intercept: float

    def score(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        scores = np.empty(len(rows))
        _probabilities(np.ascontiguousarray(rows), self.means, self.deviations, self.weights, self.intercept, scores)
        return scores

    def effects(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        return (rows - self.means) / self.deviations * self.weights


def _linear(model: Model, names: tuple[str, ...]) -> _Linear | None:
    """Return a scaled regression as arrays, None where `model` is none or one with other options."""
    steps = tuple(model.steps.values()) if isinstance(model, compose.Pipeline) else ()
    if tuple(map(type, steps)) != (preprocessing.StandardScaler, linear_model.LogisticRegression):
        return None
    scaler, regression = steps
    if not scaler.with_std or scaler.window_size is not None or type(regression.loss) is not optim.losses.Log:
        return None
    means, variances = _column(scaler.means, names), _column(scaler.vars, names)
    # What never varied scales to 0, as in River.
    varied = variances > 0
    deviations = np.sqrt(np.where(varied, variances, 1.0))
    weights = np.where(varied, _column(regression.weights, names), 0.0)
    return _Linear(means, deviations, weights, float(regression.intercept))


def _column(values: Mapping[str, float], names: tuple[str, ...]) -> NDArray[np.float64]:
    return np.array([values.get(name, 0.0) for name in names], np.float64)


@kernel(VOID(F64_2D, F64, F64, F64, FLOAT, OUT_F64))
def _probabilities(
    rows: NDArray[np.float64],
    means: NDArray[np.float64],
    deviations: NDArray[np.float64],
    weights: NDArray[np.float64],
    intercept: float,
    out: NDArray[np.float64],
) -> None:
    """Write each row's probability into `out`; a row's score does not depend on the batch it is in."""
    for i in range(rows.shape[0]):
        # The scale is not folded into the weights: mean * weight would cancel digits that the equality needs.
        logit = intercept
        for j in range(rows.shape[1]):
            logit += weights[j] * ((rows[i, j] - means[j]) / deviations[j])
        if logit < -SATURATED:
            out[i] = 0.0
        elif logit > SATURATED:
            out[i] = 1.0
        else:
            out[i] = 1.0 / (1.0 + np.exp(-logit))


def _row_by_row(model: Model, names: tuple[str, ...]) -> Scorer:
    def score(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        events = (dict(zip(names, row, strict=True)) for row in rows.tolist())
        return np.array([model.predict_proba_one(event).get(True, 0.0) for event in events], np.float64)

    return score


@dataclass(frozen=True)
class _Untold:
    """A model that is asked again without each feature."""

    model: Model
    names: tuple[str, ...]

    def effects(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([self._effects(row) for row in rows.tolist()]).reshape(rows.shape)

    def _effects(self, row: list[float]) -> list[float]:
        told = dict(zip(self.names, row, strict=True))
        whole = self._log_odds(told)
        return [
            whole - self._log_odds({name: value for name, value in told.items() if name != untold})
            for untold in self.names
        ]

    def _log_odds(self, x: dict[str, float]) -> float:
        probability = min(max(self.model.predict_proba_one(x).get(True, 0.0), LEAST), 1.0 - LEAST)
        return float(np.log(probability / (1.0 - probability)))
