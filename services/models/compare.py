"""What differs between two snapshots: what is said of them, and their weights where they are numbers in arrays."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from river import compose, linear_model

from streams.models.recipes import Model
from streams.models.storage import Arrays, HasArrays
from streams.stores.registry import Registered

F64 = NDArray[np.float64]
Weights = dict[str, F64]
"""Numbers by what they belong to: a feature, or all of a model."""


class Difference(NamedTuple):
    """Two values of one thing; `change` where both are numbers."""

    name: str
    a: Any
    b: Any

    @property
    def change(self) -> float | None:
        numbers = all(isinstance(one, int | float) for one in (self.a, self.b))
        return self.b - self.a if numbers else None


class WeightChange(NamedTuple):
    """How large the weights of two models are and how far apart, in the Euclidean norm; how many have moved; and
    `parts`, those that have moved most first."""

    a: float
    b: float
    distance: float
    moved: int
    parts: list[tuple[str, float]]


def differences(a: Registered, b: Registered) -> list[Difference]:
    """Return what is said of two snapshots, thing by thing."""
    said = ("created_at", "recipe", "feature_set", "parent", "examples_learnt", "state_bytes")
    rows = [Difference(name, getattr(a, name), getattr(b, name)) for name in said]
    rows += _both("example_offset", a.example_offsets, b.example_offsets)
    return rows + _both("", a.metrics, b.metrics)


def weights(model: Model, names: tuple[str, ...]) -> Weights:
    """Return the weights of a model over the features `names`; none of one that has no weights.

    A linear model has one by each feature's name, an estimator of our own those that its state calls weights.
    """
    last = list(model.steps.values())[-1] if isinstance(model, compose.Pipeline) else model
    if isinstance(last, linear_model.LogisticRegression):
        linear = {name: np.array([last.weights.get(name, 0.0)]) for name in names}
        return linear | {"intercept": np.array([float(last.intercept)])}
    arrays = model.arrays() if isinstance(model, HasArrays) else {}
    return {"weights": _spread(arrays)} if "weights" in arrays else {}


def compare(a: Weights, b: Weights, most: int) -> WeightChange | None:
    """Return how two models' weights differ and the `most` parts that do most; None where they cannot be compared."""
    if not a or a.keys() != b.keys():
        return None
    changes = {name: _difference(a[name], b[name]) for name in a}
    moved = sorted(((name, _norm([change])) for name, change in changes.items()), key=lambda part: -part[1])
    parts = [part for part in moved[:most] if part[1] > 0]
    count = sum(int(np.count_nonzero(change)) for change in changes.values())
    return WeightChange(_norm(a.values()), _norm(b.values()), _norm(changes.values()), count, parts)


def _spread(arrays: Arrays) -> F64:
    """Return all weights where only those at the places `touched` are stored."""
    stored = arrays["weights"].astype(np.float64).ravel()
    if "touched" not in arrays:
        return stored
    touched = arrays["touched"].astype(np.int64)
    spread = np.zeros(int(touched.max(initial=-1)) + 1)
    spread[touched] = stored
    return spread


def _difference(a: F64, b: F64) -> F64:
    """Return `b` - `a`; what one of them has not touched yet is 0 there."""
    size = max(a.size, b.size)
    return np.pad(b, (0, size - b.size)) - np.pad(a, (0, size - a.size))


def _norm(arrays: Iterable[F64]) -> float:
    return float(np.sqrt(sum(float((array**2).sum()) for array in arrays)))


def _both(what: str, a: dict[Any, Any], b: dict[Any, Any]) -> list[Difference]:
    keys = sorted(a.keys() | b.keys())
    return [Difference(f"{what} {key}".strip(), a.get(key), b.get(key)) for key in keys]
