"""What the scores were worth: the measures of a stretch of time, NaN where it cannot say."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import nan

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from services.evaluate.scored import DAY, Scored
from streams.models.evaluation import calibration_error, card_precision


@dataclass(frozen=True)
class Alarms:
    """How well one kind of alarm was given: `alarms` of it, and of those and of the positives the share met."""

    alarms: int
    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both > 0 else both


@dataclass(frozen=True)
class Measures:
    """The measures of `events` events from `begin` (epoch ms) on, which lie on so many `days` (UTC); `alarms` in
    the order of `Scored.alarms`."""

    begin: int
    days: int
    events: int
    positives: int
    auc: float
    average_precision: float
    log_loss: float
    calibration_error: float
    card_precision: float
    alarms: tuple[Alarms, ...]


def measure(scored: Scored, begin: int, k: int) -> Measures:
    """Return the measures of `scored`, card precision being that of `k` entities a day."""
    labels, scores, positives = scored.labels, scored.scores, scored.positives
    both, days = 0 < positives < len(scored), scored.times // DAY
    return Measures(
        begin,
        np.unique(days).size,
        len(scored),
        positives,
        float(roc_auc_score(labels, scores)) if both else nan,
        float(average_precision_score(labels, scores)) if positives else nan,
        float(log_loss(labels, scores, labels=[0, 1])),
        calibration_error(scores, labels),
        nan if scored.entities is None else card_precision(days, scored.entities, scores, labels, k),
        tuple(_alarms(given, labels) for given in scored.alarms.values()),
    )


def periods(scored: Scored, length: int) -> Iterator[tuple[int, Scored]]:
    """Yield the begin and the events of each period of `length` ms that has any.

    The first begins with the day (UTC) of the first event, or with its own period where that is shorter.
    """
    whole = min(length, DAY)
    start = int(scored.times[0]) // whole * whole
    period = (scored.times - start) // length
    for rows in np.split(np.arange(len(scored)), np.flatnonzero(np.diff(period)) + 1):
        yield start + int(period[rows[0]]) * length, scored.take(rows)


def total(scored: Scored, parts: Sequence[Measures], k: int) -> Measures:
    """Return the measures of all; card precision is the mean over the days of its `parts`, the periods.

    An entity that was found is left out until its period is over: in longer time it has a new card.
    """
    over_days = np.average([part.card_precision for part in parts], weights=[part.days for part in parts])
    return replace(measure(scored, parts[0].begin, k), card_precision=float(over_days))


def _alarms(given: NDArray[np.bool_], labels: NDArray[np.int8]) -> Alarms:
    alarms, positives, hits = int(given.sum()), int(labels.sum()), int(labels[given].sum())
    return Alarms(alarms, hits / alarms if alarms else nan, hits / positives if positives else nan)
