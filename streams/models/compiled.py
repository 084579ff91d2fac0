"""From a River model to a function over a batch: linear models as one loop over arrays (D7)."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from river import compose, linear_model, optim, preprocessing

from streams.kernels import F64, F64_2D, FLOAT, OUT_F64, VOID, kernel
from streams.models.recipes import Model

Scorer = Callable[[NDArray[np.float64]], NDArray[np.float64]]

SATURATED = 30.0
"""Beyond this logit River's sigmoid says 0 or 1."""


def scorer(model: Model, names: tuple[str, ...]) -> Scorer:
    """Return the probability of the positive class for rows of features float64[n, names], float64[n].

    Equals the model's `predict_proba_one` to 1e-12. A compiled scorer keeps scoring as the model was when
    compiled; a model that cannot be compiled is called row by row, as it is at the time.

    >>> from streams.models.recipes import RECIPES
    >>> scorer(RECIPES["logistic"].make(("amount",)), ("amount",))(np.array([[1.0], [9.0]])).round(3).tolist()
    [0.018, 0.018]
    """
    steps = tuple(model.steps.values()) if isinstance(model, compose.Pipeline) else ()
    if tuple(map(type, steps)) == (preprocessing.StandardScaler, linear_model.LogisticRegression):
        scaler, regression = steps
        if scaler.with_std and scaler.window_size is None and type(regression.loss) is optim.losses.Log:
            return _linear(scaler, regression, names)
    return _row_by_row(model, names)


def _linear(
    scaler: preprocessing.StandardScaler,
    regression: linear_model.LogisticRegression,
    names: tuple[str, ...],
) -> Scorer:
    means, variances = _column(scaler.means, names), _column(scaler.vars, names)
    # What never varied scales to 0, as in River.
    varied = variances > 0
    deviations = np.sqrt(np.where(varied, variances, 1.0))
    weights = np.where(varied, _column(regression.weights, names), 0.0)
    intercept = float(regression.intercept)

    def score(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        scores = np.empty(len(rows))
        _probabilities(np.ascontiguousarray(rows), means, deviations, weights, intercept, scores)
        return scores

    return score


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
