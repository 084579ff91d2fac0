"""The streams without Kafka: one pass over events in time order, each label learnt when it is due.

Stream time goes by in slices, as between two snapshots of a live model. In each slice

1. the labels that became due in the slices before are learnt,
2. its events and the labels due in it are folded into features, in the order in which stages fold them,
3. its events are scored by the model as of 1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streams.features.pipeline import Events, Labels, Pipeline
from streams.models.compiled import scorer
from streams.models.learner import Learner
from streams.models.progressive import Progressive
from streams.stores import files


@dataclass(frozen=True)
class Scored:
    """What n events were given: features float64[n, F], the model's raw scores and the calibrated ones float64[n],
    which model scored from which event on, and how good the newest labelled scores were."""

    features: NDArray[np.float64]
    raw: NDArray[np.float64]
    scores: NDArray[np.float64]
    models: list[tuple[int, str]]
    learner: Learner
    progressive: Progressive


def backtest(
    events: files.Events, label_delay: int, refresh: int, advance: Callable[[int], object], recipe: str | None = None
) -> Scored:
    """Return features and scores of labelled `events`; each label is due `label_delay` ms after its event.

    `refresh` is the stream time in ms between two models; `advance` is told of each slice's events; `recipe` is
    the use case's first unless another is given.
    """
    usecase = events.usecase
    labels, times = _labels_of(events), events.times
    due, columns = times + label_delay, _Columns(events, labels)
    pipeline, learner = Pipeline(usecase.features), Learner(recipe or usecase.recipes[0], usecase.features.names)
    n = len(events)
    features = np.empty((n, len(usecase.features.names)))
    scored = Scored(features, np.empty(n), np.empty(n), [], learner, Progressive([learner.recipe]))
    seen = folded = learnt = 0
    while seen < n:
        start = int(times[seen]) // refresh * refresh
        ready, arrived = np.searchsorted(due, (start, start + refresh)).tolist()
        _learn(scored, labels, slice(learnt, ready))
        stop = int(np.searchsorted(times, start + refresh))
        rows = slice(seen, stop)
        scored.features[rows] = pipeline.fold(columns.events(rows), columns.labels(slice(folded, arrived), due))
        scored.raw[rows] = scorer(learner.model, learner.names)(scored.features[rows])
        scored.scores[rows] = learner.calibrator.apply(scored.raw[rows])
        scored.models.append((seen, learner.model_id))
        seen, folded, learnt = stop, arrived, ready
        advance(rows.stop - rows.start)
    return scored


def _learn(scored: Scored, labels: NDArray[np.int8], rows: slice) -> None:
    scored.progressive.add(scored.scores[rows, None], labels[rows])
    scored.learner.learn_rows(scored.features[rows], labels[rows], np.ones(rows.stop - rows.start))


def _labels_of(events: files.Events) -> NDArray[np.int8]:
    if events.labels is None:
        raise ValueError("the events have no labels")
    return events.labels


class _Columns:
    """A file's columns as the pipeline takes them, sliced by row."""

    def __init__(self, events: files.Events, labels: NDArray[np.int8]) -> None:
        usecase = events.usecase
        self._ids = events.keys(usecase.event_id)
        self._keys = {stage.entity: events.keys(stage.key) for stage in usecase.features.stages}
        self._times, self._values = events.times, events.values
        self._labels = labels.astype(np.float64)

    def events(self, rows: slice) -> Events:
        """Return `rows` as events."""
        keys = {entity: column[rows] for entity, column in self._keys.items()}
        return Events(self._ids[rows], self._times[rows], keys, self._values[rows])

    def labels(self, rows: slice, due: NDArray[np.int64]) -> Labels:
        """Return the labels of `rows`, which come at `due`."""
        keys = {entity: column[rows] for entity, column in self._keys.items()}
        return Labels(self._ids[rows], due[rows], keys, self._labels[rows])
