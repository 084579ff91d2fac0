"""How good the scores were that were given at the time, by recipe: measures over the newest labelled scores."""

import math
from collections.abc import Sequence
from typing import Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.models.evaluation import calibration_error

WINDOW = 16_384
"""At a fraud rate of 0.8 % this holds 130 frauds: the AUC's standard error is then about 0.02."""

MEASURES = ("auc", "average_precision", "log_loss", "calibration_error")

SUREST = 1e-6
"""A score counts as at least so far from 0 and 1 where its logarithm is taken."""


class _Kept(msgspec.Struct, array_like=True):
    recipes: tuple[str, ...]
    seen: int
    scores: bytes
    labels: bytes


_decode = msgspec.msgpack.Decoder(_Kept).decode


class Progressive:
    """The last `window` labels, each with the score that every recipe gave its event, and what they say.

    `seen` counts all there have been. A score is NaN where the recipe gave none; they are kept as float32.

    >>> progressive = Progressive(("logistic",))
    >>> progressive.add(np.array([[0.1], [0.4], [0.35], [0.8]]), np.array([0, 0, 1, 1], np.int8))
    >>> progressive.measures("logistic")["auc"]
    0.75
    """

    def __init__(self, recipes: Sequence[str], window: int = WINDOW) -> None:
        self.recipes = tuple(recipes)
        self.seen = 0
        self._scores = np.full((window, len(self.recipes)), np.nan, np.float32)
        self._labels = np.zeros(window, np.int8)

    @classmethod
    def from_bytes(cls, data: bytes, recipes: Sequence[str], window: int = WINDOW) -> Self:
        """Return the window of a `to_bytes`, for `recipes` of which some may be new; raise ValueError."""
        progressive = cls(recipes, window)
        try:
            kept = _decode(data)
        except msgspec.DecodeError as error:
            raise ValueError(f"progressive: {error}") from None
        labels = np.frombuffer(kept.labels, np.int8)
        scores = np.frombuffer(kept.scores, np.float32).reshape(labels.size, len(kept.recipes))
        for at, recipe in enumerate(kept.recipes):
            if recipe in progressive.recipes:
                progressive._scores[: labels.size, progressive.recipes.index(recipe)] = scores[:, at]
        progressive._labels[: labels.size] = labels
        progressive.seen = kept.seen
        return progressive

    def to_bytes(self) -> bytes:
        """Return all there is to it."""
        held = slice(0, min(self.seen, self._labels.size))
        return msgspec.msgpack.encode(
            _Kept(self.recipes, self.seen, self._scores[held].tobytes(), self._labels[held].tobytes())
        )

    def add(self, scores: NDArray[np.float64], labels: NDArray[np.int8]) -> None:
        """Take the scores that n events were given, float64[n, recipes], and the labels they turned out to have."""
        window = self._labels.size
        at = np.arange(self.seen, self.seen + len(labels))[-window:] % window
        self._scores[at] = scores[-window:]
        self._labels[at] = labels[-window:]
        self.seen += len(labels)

    def newest(self, most: int) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
        """Return scores float64[n, recipes] and labels int8[n] of the newest, at most so many, in their order."""
        window = self._labels.size
        at = np.arange(max(0, self.seen - min(most, window)), self.seen) % window
        return self._scores[at].astype(np.float64), self._labels[at]

    def measures(self, recipe: str) -> dict[str, float]:
        """Return those of MEASURES that can be told of a recipe's scores, and of how many `labels`."""
        scores, labels = self.newest(self._labels.size)
        given = scores[:, self.recipes.index(recipe)]
        scored = ~np.isnan(given)
        given, labels = given[scored], labels[scored]
        loss = float(log_losses(given, labels).mean()) if given.size else math.nan
        values = auc(given, labels), average_precision(given, labels), loss, calibration_error(given, labels)
        said = {measure: value for measure, value in zip(MEASURES, values, strict=True) if math.isfinite(value)}
        return said | {"labels": float(given.size)}


def auc(scores: NDArray[np.float64], labels: NDArray[np.int8]) -> float:
    """Return the area under the ROC curve, ties counted half; NaN without both classes."""
    positives = int(labels.sum())
    negatives = labels.size - positives
    if not positives or not negatives:
        return math.nan
    _, tied, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[tied]
    above = float(ranks[labels == 1].sum()) - positives * (positives + 1) / 2
    return above / (positives * negatives)


def average_precision(scores: NDArray[np.float64], labels: NDArray[np.int8]) -> float:
    """Return the mean precision over the recall gained at each distinct score; NaN without positives."""
    positives = int(labels.sum())
    if not positives:
        return math.nan
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(labels[order], dtype=np.int64)
    last_of_ties = np.append(np.diff(scores[order]) != 0, True).nonzero()[0]
    precision = found[last_of_ties] / (last_of_ties + 1)
    gained = np.diff(found[last_of_ties], prepend=0) / positives
    return float(precision @ gained)


def log_losses(scores: NDArray[np.float64], labels: NDArray[np.int8]) -> NDArray[np.float64]:
    """Return each score's log loss in nats, 13.8 at most; NaN stays NaN."""
    losses: NDArray[np.float64] = -np.log(np.clip(np.where(labels == 1, scores, 1.0 - scores), SUREST, 1.0))
    return losses
