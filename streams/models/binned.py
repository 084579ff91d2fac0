"""Logistic regression over bins and crosses of bins, learnt online as a Gaussian belief about every weight.

A weight has a mean and a variance. An example moves every weight in it in proportion to its variance, and narrows
it by what the example tells: one step of an extended Kalman filter with a diagonal covariance (for probit regression:
Graepel et al., *Web-Scale Bayesian Click-Through Rate Prediction*, 2010). Rare bins learn from their first frauds,
frequent ones hold still, and no rate needs tuning. The variance has a floor, so that a model never stops learning.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river import base

from streams.models import bins
from streams.models.bins import F64s, Fields, FrozenBins, I64s


class BinnedRegression(base.MiniBatchClassifier):
    """Logistic regression over bins: 2^`slot_bits` weights whatever there is to see, found by hashing.

    Parameters
    ----------
    names
        The features in the order of `learn_rows`'s columns. Others that `learn_one` meets are added.
    crosses
        Features whose rough bins are looked at together.
    alone
        The features that are looked at by themselves; all unless given.
    intercept
        The log odds before anything is learnt.
    spread
        The variance of a weight before anything is learnt of it.
    floor
        The least variance: how far the newest examples may still move what is well known.
    slot_bits
        The logarithm of the number of weights.

    Examples
    --------
    >>> model = BinnedRegression(("amount",))
    >>> for amount in range(1, 200):
    ...     model.learn_one({"amount": amount}, amount > 150)
    >>> model.predict_one({"amount": 30}), model.predict_one({"amount": 190})
    (False, True)

    """

    def __init__(
        self,
        names: tuple[str, ...] | None = None,
        crosses: tuple[tuple[str, ...], ...] | None = None,
        alone: tuple[str, ...] | None = None,
        intercept: float = -4.0,
        spread: float = 0.2,
        floor: float = 0.01,
        slot_bits: int = 15,
    ) -> None:
        self.names, self.crosses, self.alone = names, crosses, alone
        self.intercept, self.spread, self.floor, self.slot_bits = intercept, spread, floor, slot_bits
        # The last one is the intercept's.
        self._weights = np.zeros((1 << slot_bits) + 1)
        self._weights[-1] = intercept
        self._variances = np.full(self._weights.size, spread)
        self._fields = Fields.over(names or (), crosses or (), alone)
        self._usual = np.zeros(self._fields.ends.size)
        self._seen = 0

    @property
    def known(self) -> tuple[Any, ...]:
        """The features in the order of the columns."""
        return self._fields.names

    def learn_rows(self, rows: F64s, labels: NDArray[np.int8], weights: F64s) -> F64s:
        """Predict each row, then learn it, in their order; return the predictions float64[n].

        float64[n, known], NaN where a feature is missing; int8[n]; importance weights float64[n].
        """
        said, fields = np.empty(len(rows)), self._fields
        self._seen = bins.learn(
            np.ascontiguousarray(rows), labels, weights, fields.members, fields.ends, fields.depths, fields.salts,
            self.floor, self._seen, self._weights, self._variances, self._usual, said,
        )  # fmt: skip
        return said

    def predict_rows(self, rows: F64s) -> F64s:
        """Return the probability of True for rows as `learn_rows` takes them."""
        return self._frozen(self._fields.members, self._weights).score(rows)

    def frozen(self, names: tuple[str, ...]) -> FrozenBins:
        """Return the model as it is now, for rows of `names`."""
        return self._frozen(self._fields.seen_by(names), self._weights.copy())

    def _frozen(self, members: I64s, weights: F64s) -> FrozenBins:
        fields = self._fields
        return FrozenBins(members, fields.ends, fields.depths, fields.salts, weights, self._usual.copy())

    def learn_one(self, x: dict[Any, Any], y: Any, w: float = 1.0) -> None:
        """Learn that `x` turned out to be `y`, as if `w` times."""
        self._adopt(x)
        self.learn_rows(self._row(x), np.array([y], np.int8), np.array([w], np.float64))

    def predict_proba_one(self, x: dict[Any, Any], **_: Any) -> dict[Any, float]:
        """Return the probability of False and of True; features that are not known do not count."""
        probability = float(self.predict_rows(self._row(x))[0])
        return {False: 1.0 - probability, True: probability}

    def learn_many(self, X: Any, y: Any) -> None:  # noqa: N803 - River's name
        """Learn the rows of a data frame in their order."""
        self._adopt(X.columns)
        self.learn_rows(self._matrix(X), y.to_numpy().astype(np.int8), np.ones(len(X)))

    def predict_proba_many(self, X: Any) -> Any:  # noqa: N803 - River's name
        """Return the probability of False and of True of each row of a data frame."""
        probabilities = self.predict_rows(self._matrix(X))
        return type(X)({False: 1.0 - probabilities, True: probabilities}, index=X.index)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state: of the weights those that were ever touched."""
        touched = np.flatnonzero((self._weights != 0.0) | (self._variances != self.spread))
        return {
            "names": np.array(self.known, np.str_),
            "salts": self._fields.salts,
            "touched": touched.astype(np.int32),
            "weights": self._weights[touched],
            "variances": self._variances[touched],
            "usual": self._usual,
            "seen": np.array([self._seen]),
        }

    def take_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from the state that `arrays` returned; raise ValueError where it is of other fields."""
        self._adopt(arrays["names"].tolist())
        if not np.array_equal(arrays["salts"], self._fields.salts):
            raise ValueError("its features or crosses are others")
        touched = arrays["touched"]
        self._weights[:], self._variances[:] = 0.0, self.spread
        self._weights[touched], self._variances[touched] = arrays["weights"], arrays["variances"]
        self._usual, self._seen = arrays["usual"].astype(np.float64), int(arrays["seen"][0])

    def _adopt(self, names: Iterable[Any]) -> None:
        new = [name for name in names if name not in self.known]
        if new:
            self._fields = Fields.over((*self.known, *new), self.crosses or (), self.alone)
            self._usual = np.append(self._usual, np.zeros(self._fields.ends.size - self._usual.size))

    def _row(self, x: Mapping[Any, Any]) -> F64s:
        return np.array([[x.get(name, np.nan) for name in self.known]], np.float64)

    def _matrix(self, X: Any) -> F64s:  # noqa: N803
        matrix: F64s = X.reindex(columns=list(self.known)).to_numpy(np.float64)
        return matrix
