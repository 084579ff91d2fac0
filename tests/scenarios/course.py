"""The learning loop without Kafka: payments scored by every recipe's model as of then, labels learnt when they come.

Each second of stream time goes by as between two announcements of a live learner:

1. the labels that came in the second before are learnt, with the scores that their payments were given at the time,
   and judged: the champion may change;
2. the second's payments are scored by the models as of 1, the champion's score being the one that counts.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from schemas.events import AliasChange, Example
from streams.models.calibration import Calibrator
from streams.models.compiled import scorer
from streams.models.learner import Learner
from streams.models.lessons import Lessons
from streams.models.recipes import RECIPES, Model, Recipe
from streams.models.snapshot import unseal
from streams.usecases import FRAUD
from tests.scenarios.payments import DELAY, NAMES, Payments

FEATURE_SET = FRAUD.features.fingerprint

KEY = b"k" * 32

Spoil = Callable[[Example], Example]
Teach = Callable[[list[Example]], object]
Operator = Callable[[int], AliasChange | None]
Say = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def lessons(*recipes: str) -> Lessons:
    """Return unlearnt lessons of fraud in `recipes`, the first being the champion."""
    return Lessons(recipes, NAMES, FEATURE_SET)


@contextmanager
def twin(recipe: str) -> Iterator[str]:
    """Yield the name of a second recipe like `recipe`, which there is for the block only."""
    name = f"{recipe}-twin"
    RECIPES[name] = Recipe(name, RECIPES[recipe].make)
    try:
        yield name
    finally:
        del RECIPES[name]


def freeze(learner: Learner) -> None:
    """Let `learner` learn no more, as a model that was trained once does not."""
    learner.learn_rows = lambda *examples, **more: 0  # type: ignore[method-assign]


@dataclass
class Course:
    """What n payments were given: `scores` by recipe and as `served` by the champion of the time, float64[n]; how
    many labels were `learnt` by then, int64[n]; and by which changes the champion came to be it."""

    payments: Payments
    lessons: Lessons
    scores: dict[str, NDArray[np.float64]]
    served: NDArray[np.float64]
    learnt: NDArray[np.int64]
    changes: list[AliasChange] = field(default_factory=list)

    def average_precision(self, scores: NDArray[np.float64], rows: slice) -> float:
        """Return that of the payments in `rows`."""
        return float(average_precision_score(self.payments.labels[rows], scores[rows]))


def run(
    payments: Payments,
    taught: Lessons,
    spoil: Spoil | None = None,
    teach: Teach | None = None,
    operator: Operator = lambda second: None,
) -> Course:
    """Return how `payments` went with `taught`.

    `spoil` is what happens to the examples on their way, `teach` the way they take where it is not the plain one, and
    `operator` may do something or change the champion in each second, before it is scored.
    """
    n = len(payments)
    served, learnt = np.full(n, np.nan), np.zeros(n, np.int64)
    course = Course(payments, taught, {recipe: np.full(n, np.nan) for recipe in taught.learners}, served, learnt)
    champions, pinned = [taught.seat.champion] * n, None
    for second, (due, rows) in enumerate(payments.seconds()):
        examples = [_example(course, champions[row], row) for row in range(due.start, due.stop)]
        if spoil:
            examples = [spoil(example) for example in examples]
        if teach:
            teach(examples)
        else:
            taught.take_rows(taught.rows(examples))
        course.changes += taught.changes
        taught.changes.clear()
        change = operator(second)
        if change:
            taught.follow(change)
            pinned = _served(*unseal(change.model, KEY, FEATURE_SET, NAMES)) if change.model else None
        if taught.sound:  # others are not announced
            serving = {recipe: _served(one.model, one.calibrator) for recipe, one in taught.learners.items()}
        for recipe, say in serving.items():
            course.scores[recipe][rows] = say(payments.features[rows])
        champion = taught.seat.champion
        champions[rows] = [champion] * (rows.stop - rows.start)
        served[rows] = pinned(payments.features[rows]) if pinned else course.scores[champion][rows]
        learnt[rows] = taught.progressive.seen
    return course


def _served(model: Model, calibrator: Calibrator) -> Say:
    """Return how a scorer goes by a model and a calibrator as they are now."""
    score, calibrated = scorer(model, NAMES), Calibrator.from_array(calibrator.to_array())
    return lambda rows: calibrated.apply(score(rows))


def _example(course: Course, champion: str, row: int) -> Example:
    payments = course.payments
    said = {recipe: float(scores[row]) for recipe, scores in course.scores.items()}
    said.pop(champion)
    time = int(payments.times[row])
    return Example(
        event_id=str(row),
        event_time=time,
        label_time=time + DELAY,
        label=int(payments.labels[row]),  # type: ignore[arg-type]
        features=dict(zip(NAMES, payments.features[row].tolist(), strict=True)),
        score=float(course.served[row]),
        model_id=f"{champion}@0",
        feature_set=FEATURE_SET,
        label_partition=0,
        label_offset=row,
        shadow=said,
    )
