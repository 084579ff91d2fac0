"""The whole feature set in one process's memory: what the workers compute together, for backtest and tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streams.features.spec import FeatureSet, Over
from streams.features.table import EntityTable
from streams.features.vector import assemble, merge_order


@dataclass(frozen=True)
class Events:
    """Columns of n events in the order they came: ids, times int64[n] (ms), keys[entity][n], values
    float64[n, len(features.values)]."""

    ids: Sequence[bytes]
    times: NDArray[np.int64]
    keys: Mapping[str, Sequence[bytes]]
    values: NDArray[np.float64]

    def take(self, rows: NDArray[np.intp]) -> "Events":
        """Return some of the events, in the order given; the same object where these are all."""
        if len(rows) == len(self.times):
            return self
        picked = rows.tolist()
        keys = {entity: [column[row] for row in picked] for entity, column in self.keys.items()}
        return Events([self.ids[row] for row in picked], self.times[rows], keys, self.values[rows])


@dataclass(frozen=True)
class Labels:
    """Columns of n labels: the ids and keys of the labelled events, the labels' times, the labels float64[n]."""

    ids: Sequence[bytes]
    times: NDArray[np.int64]
    keys: Mapping[str, Sequence[bytes]]
    labels: NDArray[np.float64]


class Pipeline:
    """Every stage's table, folded in turn."""

    def __init__(self, features: FeatureSet) -> None:
        self.features = features
        self.tables = tuple(EntityTable(stage, features) for stage in features.stages)

    def fold(self, events: Events, labels: Labels) -> NDArray[np.float64]:
        """Fold a slice of stream time and return the events' feature vectors, float64[n, features].

        The first stage folds events in the order given, the later ones events and labels in `merge_order`.
        Slices are given in order, and no two slices share a time. An event whose id the first stage remembers
        goes no further: its row is NaN.
        """
        n, kinds = len(events.times), np.full(len(events.times), Over.EVENTS, np.int8)
        values = np.hstack([events.values, np.zeros((n, 1))])
        keys = events.keys[self.tables[0].stage.entity]
        folded, fresh = self.tables[0].fold_once(events.ids, keys, kinds, events.times, values)
        rows = np.flatnonzero(fresh)
        vectors = np.full((n, len(self.features.names)), np.nan)
        vectors[rows] = self._fold_later(events.take(rows), labels, folded[rows])
        return vectors

    def _fold_later(self, events: Events, labels: Labels, folded: NDArray[np.float64]) -> NDArray[np.float64]:
        """Fold what passed the first stage with its features, float64[n, …]; return the feature vectors."""
        later, staged = self.tables[1:], [folded]
        n, kinds = len(events.times), np.full(len(events.times), Over.EVENTS, np.int8)
        values = np.hstack([events.values, np.zeros((n, 1))])
        if later:
            times = np.concatenate([events.times, labels.times])
            kinds = np.concatenate([kinds, np.full(len(labels.times), Over.LABELS, np.int8)])
            label_values = np.zeros((len(labels.times), values.shape[1]))
            label_values[:, -1] = labels.labels
            values = np.concatenate([values, label_values])
            order = merge_order(times, kinds, [*events.ids, *labels.ids])
            times, kinds, values = times[order], kinds[order], values[order]
        for table in later:
            entity = table.stage.entity
            keys = [*events.keys[entity], *labels.keys[entity]]
            folded = table.fold([keys[row] for row in order], kinds, times, values)
            matrix = np.empty_like(folded)
            matrix[order] = folded
            staged.append(matrix[:n])
        return assemble(self.features, events.times, events.values, staged)
