"""Fold records into a table in batches, as the stream does."""

from itertools import pairwise

import numpy as np

from streams.features.spec import Over
from tests.unit.streams.features.drawn import VALUES


def fold(table, records, cuts=()):
    """Fold `records` cut into batches at `cuts`; return the stage's features, float64[n, features]."""
    bounds = [0, *(min(cut, len(records)) for cut in cuts), len(records)]
    return np.vstack([fold_batch(table, records[lo:hi]) for lo, hi in pairwise(bounds)])


def fold_batch(table, records):
    return table.fold(
        [record.key for record in records],
        np.array([record.kind for record in records], np.int8),
        np.array([record.time for record in records], np.int64),
        np.array([record.values for record in records], np.float64).reshape(len(records), len(VALUES) + 1),
    )


def rows(table, records, folded):
    """The features of each event by name; labels have none."""
    return [
        dict(zip(table.stage.names, row.tolist(), strict=True)) if record.kind is Over.EVENTS else {}
        for record, row in zip(records, folded, strict=True)
    ]


def taken(table):
    """What has changed since the last call, copied at once."""
    copy, states = table.copy(), []
    while piece := copy.take(100):
        states += piece
    return states
