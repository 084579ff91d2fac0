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
        Slices are given in order, and no two slices share a time.
        """
        first, *later = self.tables
        n, kinds = len(events.times), np.full(len(events.times), Over.EVENTS, np.int8)
        values = np.hstack([events.values, np.zeros((n, 1))])
        staged = [first.fold(events.keys[first.stage.entity], kinds, events.times, values)]
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
