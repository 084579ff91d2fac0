"""What differs between two snapshots: what is said of them, and their weights where they are numbers in arrays."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from river import compose, linear_model

from streams.models.recipes import Model
from streams.models.storage import HasArrays
from streams.stores.registry import Registered

F64 = NDArray[np.float64]
Weights = dict[str, F64]
"""Numbers by what they belong to: a feature, or an array of the model."""


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
    """How large the weights of two models are and how far apart, in the Euclidean norm; `parts` by what moved most."""

    a: float
    b: float
    distance: float
    parts: list[tuple[str, float]]


def differences(a: Registered, b: Registered) -> list[Difference]:
    """Return what is said of two snapshots, thing by thing."""
    said = ("created_at", "recipe", "feature_set", "parent", "examples_learnt", "state_bytes")
    rows = [Difference(name, getattr(a, name), getattr(b, name)) for name in said]
    rows += _both("example_offset", a.example_offsets, b.example_offsets)
    return rows + _both("", a.metrics, b.metrics)


def weights(model: Model, names: tuple[str, ...]) -> Weights:
    """Return the weights of a model over the features `names`; none of one whose state is no arrays."""
    last = list(model.steps.values())[-1] if isinstance(model, compose.Pipeline) else model
    if isinstance(last, linear_model.LogisticRegression):
        linear = {name: np.array([last.weights.get(name, 0.0)]) for name in names}
        return linear | {"intercept": np.array([float(last.intercept)])}
    if not isinstance(model, HasArrays):
        return {}
    found: Weights = {}
    for name, array in model.arrays().items():
        if np.issubdtype(array.dtype, np.floating):
            found |= _by_feature(name, array.astype(np.float64), names)
    return found


def compare(a: Weights, b: Weights, most: int) -> WeightChange | None:
    """Return how two models' weights differ and the `most` parts that do most; None where they cannot be compared."""
    if not a or {name: one.shape for name, one in a.items()} != {name: one.shape for name, one in b.items()}:
        return None
    moved = sorted(((name, _norm([b[name] - a[name]])) for name in a), key=lambda part: -part[1])
    return WeightChange(
        _norm(a.values()),
        _norm(b.values()),
        _norm(b[name] - a[name] for name in a),
        [part for part in moved[:most] if part[1] > 0],
    )


def _by_feature(name: str, array: F64, names: tuple[str, ...]) -> Weights:
    if array.ndim and len(array) == len(names):
        return {f"{name} of {feature}": np.atleast_1d(row) for feature, row in zip(names, array, strict=True)}
    return {name: array}


def _norm(arrays: Iterable[F64]) -> float:
    return float(np.sqrt(sum(float((array**2).sum()) for array in arrays)))


def _both(what: str, a: dict[Any, Any], b: dict[Any, Any]) -> list[Difference]:
    keys = sorted(a.keys() | b.keys())
    return [Difference(f"{what} {key}".strip(), a.get(key), b.get(key)) for key in keys]
