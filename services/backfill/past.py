"""One fold over a file and a log: every event once, each label that is known with its event; pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from schemas.events import Label
from streams.agents.settling import weight_of
from streams.features.pipeline import Events, Labels, Pipeline
from streams.models.learner import Learner
from streams.runtime.hop import HopRows
from streams.stores import files
from streams.stores.history import label_order
from streams.usecases import UseCase


@dataclass(frozen=True)
class Past:
    """The folded entities, each recipe's learner of the labels, and how many events came from the file and the log, and
    labels with and without event."""

    pipeline: Pipeline
    learners: dict[str, Learner]
    from_file: int
    from_log: int
    labelled: int
    unknown: int


def fold(
    usecase: UseCase, file: files.Events, delay: int, now: int, log: Sequence[HopRows], labels: Sequence[Label]
) -> Past:
    """Return the states after the events of `file` that `log` has not, then those of `log` in its order.

    A label of the file is known `delay` ms after its event, if that is not after `now` (ms) and the log has no
    label of that event. Of several labels in the log the one counts that the join would end with, as if there had been
    no other. Labels are learnt in the order in which they became known.
    """
    logged = _logged(usecase, log)
    known = set(logged.ids)
    older = _rows(usecase, file, np.array([one.encode() not in known for one in file.event_ids], np.bool_))
    told = {label.event_id: label for label in sorted(labels, key=label_order)}
    ours = [*told.values(), *(label for label in _labels(file, delay, now) if label.event_id not in told)]
    joined, places = _joined(ours, (older, logged))
    pipeline = Pipeline(usecase.features)
    early = int(np.searchsorted(joined.times, older.times.max(initial=0), side="right"))
    vectors = (
        pipeline.fold(older, _between(joined, 0, early)),
        pipeline.fold(logged, _between(joined, early, len(places))),
    )
    names = usecase.features.names
    rows = np.array([vectors[source][row] for source, row in places]).reshape(len(places), len(names))
    outcomes = joined.labels.astype(np.int8)
    weights = np.array(
        [
            weight_of(event_id.decode(), label, usecase.negatives_kept)
            for event_id, label in zip(joined.ids, outcomes.tolist(), strict=True)
        ]
    )
    learnt = weights > 0
    learners = {recipe: Learner(recipe, names) for recipe in usecase.recipes}
    for learner in learners.values():
        learner.learn_rows(rows[learnt], outcomes[learnt], weights[learnt])
    return Past(pipeline, learners, len(older.times), len(logged.times), len(places), len(ours) - len(places))


def _between(labels: Labels, start: int, end: int) -> Labels:
    rows = slice(start, end)
    keys = {entity: column[rows] for entity, column in labels.keys.items()}
    return Labels(labels.ids[rows], labels.times[rows], keys, labels.labels[rows])


def _logged(usecase: UseCase, log: Sequence[HopRows]) -> Events:
    numbers = [rows.numbers[:, : len(usecase.features.values)] for rows in log]
    columns = [[rows.texts[column] for rows in log] for column in range(1 + len(usecase.entities))]
    ids, *keys = [[text.encode() for text in chain.from_iterable(column)] for column in columns]
    return Events(
        ids,
        np.concatenate([rows.times for rows in log] or [np.zeros(0, np.int64)]),
        dict(zip(usecase.entities, keys, strict=True)),
        np.concatenate(numbers or [np.zeros((0, len(usecase.features.values)))]),
    )


def _rows(usecase: UseCase, file: files.Events, chosen: np.ndarray) -> Events:
    stages = usecase.features.stages
    keys = {stage.entity: file.keys(stage.key) for stage in stages}
    ids = file.keys(usecase.event_id)
    return Events(ids, file.times, keys, file.values).take(np.flatnonzero(chosen))


def _labels(file: files.Events, delay: int, now: int) -> Iterable[Label]:
    if file.labels is None:
        return
    for name, time, label in zip(file.event_ids, (file.times + delay).tolist(), file.labels.tolist(), strict=True):
        if time <= now:
            yield Label(name, time, label)


def _joined(labels: Sequence[Label], sources: Sequence[Events]) -> tuple[Labels, list[tuple[int, int]]]:
    """Return the labels whose events are among `sources`, in the order of their times, and where the event of each
    is: which source, and its row."""
    wanted = {label.event_id.encode() for label in labels}
    found = {
        name: (source, row)
        for source, events in enumerate(sources)
        for row, name in enumerate(events.ids)
        if name in wanted
    }
    joined = sorted((one for one in labels if one.event_id.encode() in found), key=lambda one: one.label_time)
    places = [found[one.event_id.encode()] for one in joined]
    keys = {entity: [sources[source].keys[entity][row] for source, row in places] for entity in sources[0].keys}
    return (
        Labels(
            [one.event_id.encode() for one in joined],
            np.array([one.label_time for one in joined], np.int64),
            keys,
            np.array([one.label for one in joined], np.float64),
        ),
        places,
    )
