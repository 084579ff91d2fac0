"""How good the scores were that were given at the time, by recipe: measures over the newest labelled scores."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.models.evaluation import calibration_error

WINDOW = 16_384
"""At a fraud rate of 0.8 % this holds 130 frauds: the AUC's standard error is then about 0.02."""

MEASURES = ("auc", "average_precision", "log_loss", "calibration_error", "precision", "recall", "f1")
"""The last three are those of the alarms that the scores raised."""

SUREST = 1e-6
"""A score counts as at least so far from 0 and 1 where its logarithm is taken."""

UNTOLD = -1
"""What stands for an alarm where nobody said whether there was one."""


class _Kept(msgspec.Struct, array_like=True):
    recipes: tuple[str, ...]
    seen: int
    scores: bytes
    labels: bytes
    weights: bytes = b""
    events: bytes = b""
    alarms: bytes = b""


_decode = msgspec.msgpack.Decoder(_Kept).decode


class Said(NamedTuple):
    """What n events were given, float64[n, recipes], NaN where nothing counts; what they turned out to be, int8[n];
    and for how many events each stands, float64[n]."""

    scores: NDArray[np.float64]
    labels: NDArray[np.int8]
    weights: NDArray[np.float64]


class Progressive:
    """The last `window` labels, each with the score that every recipe gave its event, and what they say.

    `seen` counts all there have been. A score is NaN where the recipe gave none; they are kept as float32. Of an event
    whose label was corrected the last label counts: the one before is struck out, its scores are NaN.

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
        self._weights = np.ones(window, np.float32)
        self._events = np.zeros(window, np.uint32)
        self._alarms = np.full((window, len(self.recipes)), UNTOLD, np.int8)
        self._measured: dict[str, dict[str, float]] = {}

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
        alarms = np.full(scores.shape, UNTOLD, np.int8)  # the first of them were kept without
        if kept.alarms:
            alarms = np.frombuffer(kept.alarms, np.int8).reshape(scores.shape)
        for at, recipe in enumerate(kept.recipes):
            if recipe in progressive.recipes:
                progressive._scores[: labels.size, progressive.recipes.index(recipe)] = scores[:, at]
                progressive._alarms[: labels.size, progressive.recipes.index(recipe)] = alarms[:, at]
        progressive._labels[: labels.size] = labels
        if kept.weights:  # and without these
            progressive._weights[: labels.size] = np.frombuffer(kept.weights, np.float32)
            progressive._events[: labels.size] = np.frombuffer(kept.events, np.uint32)
        progressive.seen = kept.seen
        return progressive

    def to_bytes(self) -> bytes:
        """Return all there is to it."""
        held = slice(0, min(self.seen, self._labels.size))
        columns = (self._scores, self._labels, self._weights, self._events, self._alarms)
        return msgspec.msgpack.encode(_Kept(self.recipes, self.seen, *(column[held].tobytes() for column in columns)))

    def add(
        self,
        scores: NDArray[np.float64],
        labels: NDArray[np.int8],
        weights: NDArray[np.float64] | None = None,
        events: NDArray[np.uint32] | None = None,
        corrects: NDArray[np.int8] | None = None,
        alarms: NDArray[np.bool_] | None = None,
    ) -> None:
        """Take the scores that n events were given, float64[n, recipes], and the labels they turned out to have.

        `weights` float64[n] says for how many events each stands, 1 unless given; `events` uint32[n] which events they
        are, and `corrects` int8[n] which label of the same event each takes the place of, negative for none; `alarms`
        bool[n, recipes] whether each score was reason enough to stop its event.
        """
        window, n = self._labels.size, len(labels)
        places = np.arange(self.seen, self.seen + n)[-window:]
        at = places % window
        self._scores[at] = scores[-window:]
        self._labels[at] = labels[-window:]
        self._weights[at] = 1.0 if weights is None else weights[-window:]
        self._events[at] = 0 if events is None else events[-window:]
        self._alarms[at] = UNTOLD if alarms is None else alarms[-window:]
        self.seen += n
        self._measured.clear()
        if events is not None and corrects is not None:
            for row in np.flatnonzero(corrects >= 0).tolist():
                self._strike(self.seen - n + row, int(events[row]), int(corrects[row]))

    def _strike(self, before: int, event: int, label: int) -> None:
        """Let the newest of an event's labels before a place, which is `label`, count no more."""
        window = self._labels.size
        at = np.flatnonzero((self._events == event) & (self._labels == label))
        # Which of all labels each is: the newest stand before the ring's end, the rest a round earlier.
        places = self.seen - 1 - (self.seen - 1 - at) % window
        earlier = at[(places < before) & (places >= 0)]
        if earlier.size:
            self._scores[earlier[np.argmax(places[(places < before) & (places >= 0)])]] = np.nan

    def newest(self, most: int) -> Said:
        """Return what was said of the newest, at most so many, in their order."""
        at = self._newest_places(most)
        return Said(self._scores[at].astype(np.float64), self._labels[at], self._weights[at].astype(np.float64))

    def _newest_places(self, most: int) -> NDArray[np.int64]:
        window = self._labels.size
        return np.arange(max(0, self.seen - min(most, window)), self.seen) % window

    def measures(self, recipe: str) -> dict[str, float]:
        """Return those of MEASURES that can be told of a recipe's scores, and of how many `labels`; each event counts
        for as many as it stands for."""
        if recipe not in self._measured:
            self._measured[recipe] = self._measure(recipe)
        return dict(self._measured[recipe])

    def _measure(self, recipe: str) -> dict[str, float]:
        scores, labels, weights = self.newest(self._labels.size)
        column = self.recipes.index(recipe)
        given, alarms = scores[:, column], self._alarms[self._newest_places(labels.size), column]
        scored = ~np.isnan(given)
        given, labels, weights, alarms = given[scored], labels[scored], weights[scored], alarms[scored]
        told = alarms != UNTOLD
        loss = float(log_losses(given, labels) @ weights / weights.sum()) if given.size else math.nan
        values = (
            auc(given, labels, weights),
            average_precision(given, labels, weights),
            loss,
            calibration_error(given, labels, weights=weights),
            *alarm_measures(alarms[told], labels[told], weights[told]),
        )
        said = {measure: value for measure, value in zip(MEASURES, values, strict=True) if math.isfinite(value)}
        return said | {"labels": float(given.size)}


def auc(scores: NDArray[np.float64], labels: NDArray[np.int8], weights: NDArray[np.float64]) -> float:
    """Return the area under the ROC curve, ties counted half; NaN without both classes."""
    _, tied = np.unique(scores, return_inverse=True)
    positives, negatives = (np.bincount(tied, weights * (labels == label)) for label in (1, 0))
    pairs = positives.sum() * negatives.sum()
    below = np.cumsum(negatives) - negatives / 2
    return float(positives @ below / pairs) if pairs else math.nan


def average_precision(scores: NDArray[np.float64], labels: NDArray[np.int8], weights: NDArray[np.float64]) -> float:
    """Return the mean precision over the recall gained at each distinct score; NaN without positives."""
    order = np.argsort(-scores, kind="stable")
    found, looked_at = np.cumsum(weights[order] * labels[order]), np.cumsum(weights[order])
    if not found.size or not found[-1]:
        return math.nan
    last_of_ties = np.append(np.diff(scores[order]) != 0, True).nonzero()[0]
    precision = found[last_of_ties] / looked_at[last_of_ties]
    gained = np.diff(found[last_of_ties], prepend=0.0) / found[-1]
    return float(precision @ gained)


def alarm_measures(
    alarms: NDArray[np.int8], labels: NDArray[np.int8], weights: NDArray[np.float64]
) -> tuple[float, float, float]:
    """Return precision, recall and F1: the share of alarms that were right, that of positives that were met, and the
    harmonic mean of both; each NaN where there is nothing to have a share of."""
    raised, positives = float(weights @ alarms), float(weights @ labels)
    right = float(weights @ (alarms * labels))
    return (
        right / raised if raised else math.nan,
        right / positives if positives else math.nan,
        2.0 * right / (raised + positives) if raised + positives else math.nan,
    )


def log_losses(scores: NDArray[np.float64], labels: NDArray[np.int8]) -> NDArray[np.float64]:
    """Return each score's log loss in nats, 13.8 at most; NaN stays NaN."""
    losses: NDArray[np.float64] = -np.log(np.clip(np.where(labels == 1, scores, 1.0 - scores), SUREST, 1.0))
    return losses
