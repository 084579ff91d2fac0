"""Learning, one example after the other: predict, calibrate, learn, and see whether the model is still sound."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from streams.models.calibration import Calibrator
from streams.models.compiled import Scorer, scorer
from streams.models.guard import GOOD_EVERY, Guard
from streams.models.packing import pack, unpack
from streams.models.recipes import RECIPES, Model

LARGEST = 1e15
"""A larger value is none that an event can have, and what it does to a variance stays for ever."""

HEAVIEST = 1e4
"""A heavier example is none that sampling can have made."""

MOST_TAKEN_BACK = 100.0
"""The weight of a correction of what the model is sure of; beyond, its label is believed no more than so."""

HEAVY_TIMES = 8
"""How many times as seldom the state of a heavy model is kept, once it has learnt as many examples: while it is young
its state is small, and it has little to go back to."""

FAILURES = (ArithmeticError, ValueError)
"""What a model's arithmetic raises when its weights have gone wrong."""

NOTHING = -1
"""What an example corrects that corrects nothing."""


@runtime_checkable
class LearnsRows(Protocol):
    """An estimator that takes arrays: predicts each row, then learns it, in their order."""

    def learn_rows(
        self, rows: NDArray[np.float64], labels: NDArray[np.int8], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return what was said of each row before it was learnt; the same bits as one row after the other."""


class Learner:
    """A recipe's model that learns from labelled examples over the features `names`, and its calibrator.

    `examples_learnt`, `examples_skipped` (while the guard held it frozen) and `examples_refused` say how far it is.

    >>> learner = Learner("logistic", ("amount",))
    >>> learner.learn({"amount": 12.5}, 0), learner.learn({"amount": float("nan")}, 1), learner.model_id
    (True, False, 'logistic@1')
    """

    def __init__(self, recipe: str, names: tuple[str, ...]) -> None:
        self.recipe = recipe
        self.names = names
        self.model: Model = RECIPES[recipe].make(names)
        self.heavy = RECIPES[recipe].heavy
        self.calibrator = Calibrator()
        self.guard = Guard()
        self.examples_learnt = 0
        self.examples_skipped = 0
        self.examples_refused = 0
        self._good: tuple[bytes, Scorer] | None = None

    @property
    def model_id(self) -> str:
        """The model's name: recipe and number of examples, those that were skipped included.

        A model that went back to an earlier state has another name than it had then.
        """
        return f"{self.recipe}@{self.examples_learnt + self.examples_skipped}"

    def learn(
        self, features: Mapping[str, float], label: int, weight: float = 1.0, corrects: int | None = None
    ) -> bool:
        """Learn that `features` turned out to be `label` (0 or 1); return whether they were fit to be learnt from.

        Not fit, and nothing is changed: a feature missing, or values and weights as `fit` says.
        """
        row = [[features.get(name, np.nan) for name in self.names]]
        before = self.examples_refused
        self.learn_rows(
            np.array(row, np.float64),
            np.array([label], np.int8),
            np.array([weight], np.float64),
            np.array([NOTHING if corrects is None else corrects], np.int8),
        )
        return self.examples_refused == before

    def learn_rows(
        self,
        rows: NDArray[np.float64],
        labels: NDArray[np.int8],
        weights: NDArray[np.float64],
        corrects: NDArray[np.int8] | None = None,
    ) -> int:
        """Learn n examples in their order, to the bit as one after the other; return how many were learnt.

        float64[n, names], int8[n], float64[n]; `corrects` int8[n] has the label that an example's event was learnt
        with before, NOTHING for none; its weight is then that of the earlier label.
        """
        fits = fit(rows, weights)
        corrects = np.full(len(rows), NOTHING, np.int8) if corrects is None else corrects
        if not fits.all():
            self.examples_refused += int((~fits).sum())
            rows, labels, weights, corrects = rows[fits], labels[fits], weights[fits], corrects[fits]
        before, at = self.examples_learnt, 0
        while at < len(rows):
            skipped = self.guard.thaw(len(rows) - at)
            self.examples_skipped += skipped
            at += skipped
            block = slice(at, at + self.guard.room)
            at += self._learn_block(rows[block], labels[block], weights[block], corrects[block])
        return self.examples_learnt - before

    def _learn_block(
        self,
        rows: NDArray[np.float64],
        labels: NDArray[np.int8],
        weights: NDArray[np.float64],
        corrects: NDArray[np.int8],
    ) -> int:
        """Learn up to the end of the guard's block; return how many examples were taken."""
        raw, at = np.empty(len(rows)), 0
        for correction in [*np.flatnonzero(corrects != NOTHING).tolist(), len(rows)]:
            span = slice(at, correction)
            raw[span] = self._teach(rows[span], labels[span], weights[span], weights[span])
            one = slice(correction, correction + 1)
            raw[one] = self._correct(rows[one], labels[one], weights[one])
            at = correction + 1
        unsound = np.flatnonzero(~np.isfinite(raw))
        taken = int(unsound[0]) + 1 if unsound.size else len(rows)
        self.examples_learnt += taken
        if unsound.size:
            self._go_back()
            return taken
        self.guard.add(raw if self.heavy or not self.guard.good else self._reference(rows), labels)
        if self.guard.room == 0:
            if self.guard.close(self.model):
                self._go_back()
            elif self.guard.good_is_due(self._seldom()):
                self.guard.keep(pack(self.model, self.calibrator))
        return taken

    def _seldom(self) -> int:
        grown = self.examples_learnt > HEAVY_TIMES * GOOD_EVERY
        return HEAVY_TIMES if self.heavy and grown else 1

    def _correct(
        self, rows: NDArray[np.float64], labels: NDArray[np.int8], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Learn at most one example whose event was learnt with the other label, and take that back."""
        if not len(rows):
            return np.empty(0)
        raw = self._predict(rows[0])
        said = float(self.calibrator.apply(np.array([raw]))[0])
        once = np.array([taking_back(raw, int(labels[0]), weights[0])])
        calibrating = np.array([taking_back(said, int(labels[0]), weights[0])])
        return self._teach(rows, labels, once, calibrating)

    def _teach(
        self,
        rows: NDArray[np.float64],
        labels: NDArray[np.int8],
        weights: NDArray[np.float64],
        calibrating: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Predict and learn each row; return what was said, NaN from the first that the model failed at."""
        if isinstance(self.model, LearnsRows):
            raw = self.model.learn_rows(np.ascontiguousarray(rows), labels, weights)
        else:
            raw = np.full(len(rows), np.nan)
            for at, (row, label, weight) in enumerate(
                zip(rows.tolist(), labels.tolist(), weights.tolist(), strict=True)
            ):
                x = dict(zip(self.names, row, strict=True))
                try:
                    said = self.model.predict_proba_one(x).get(True, 0.0)
                    self.model.learn_one(x, label == 1, w=weight)
                except FAILURES:
                    break
                raw[at] = said
        self.calibrator.learn_many(raw, labels, calibrating)
        return raw

    def _predict(self, row: NDArray[np.float64]) -> float:
        try:
            return self.model.predict_proba_one(dict(zip(self.names, row.tolist(), strict=True))).get(True, 0.0)
        except FAILURES:
            return float("nan")

    def _reference(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what the guard's good state says of rows."""
        if self._good is None or self._good[0] is not self.guard.good:
            model, _ = unpack(self.recipe, self.names, self.guard.good)
            self._good = self.guard.good, scorer(model, self.names)
        return self._good[1](rows)

    def _go_back(self) -> None:
        state = self.guard.trip()
        if not state:
            self.model, self.calibrator = RECIPES[self.recipe].make(self.names), Calibrator()
            return
        self.model, self.calibrator = unpack(self.recipe, self.names, state)


def fit(rows: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Say of which rows a model may learn: values that are finite and not absurdly large, a weight that is sane."""
    # One sum sees NaN, infinities and the too large: each makes the comparison false.
    with np.errstate(over="ignore"):
        fits: NDArray[np.bool_] = (np.abs(rows).sum(axis=1) <= LARGEST) & (weights > 0.0) & (weights <= HEAVIEST)
    return fits


def taking_back(said: float, label: int, weight: float) -> float:
    """Return the weight of an example that was learnt before as the other label, with `weight`; `said` is p(1).

    At this weight the log loss's slope is that of the label plus the earlier one's taken back:
    w (p − y) = (p − y) − v (p − (1 − y)), so that the rate learnt is the true one, however many labels come late.
    Cf. the fake-negative weights of Ktena et al., *Addressing Delayed Feedback for Continuous Training with Neural
    Networks in CTR Prediction* (2019), which must guess which negatives are false; here it is known.

    >>> taking_back(0.2, 1, 1.0)
    1.25
    """
    right = said if label == 1 else 1.0 - said
    return min(1.0 + weight * right / max(1.0 - right, 1e-9), MOST_TAKEN_BACK) if np.isfinite(said) else 1.0
