"""From columns to the feature vector: one function for the stream, the backtest and the tests."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streams.features.spec import EVENT_TIME, Column, FeatureSet


def assemble(
    features: FeatureSet,
    times: NDArray[np.int64],
    values: NDArray[np.float64],
    staged: Sequence[NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Return the feature vectors float64[n, len(features.names)] of n events.

    times int64[n] in ms, values float64[n, >= len(features.values)], `staged` one float64[n, …] a stage.
    A derived feature that is not finite is 0.
    """
    known = [values[:, : len(features.values)], *staged]
    names = features.names
    vector = np.empty((len(times), len(names)))
    width = sum(part.shape[1] for part in known)
    np.concatenate(known, axis=1, out=vector[:, :width])
    columns = {name: vector[:, i] for i, name in enumerate(names[:width])}
    columns[EVENT_TIME] = times.astype(np.float64)
    _derive(features, vector, columns, width, False)
    if not np.isfinite(vector[:, width:]).all():  # rare, and a look at each column costs more than the columns
        _derive(features, vector, columns, width, True)
    return vector


def _derive(
    features: FeatureSet, vector: NDArray[np.float64], columns: dict[str, Column], width: int, mended: bool
) -> None:
    """Compute the derived features one after the other; `mended`, with 0 for what is not finite before the next."""
    for i, feature in enumerate(features.derived, start=width):
        column = vector[:, i]
        column[:] = feature.function(columns)
        if mended:
            column[~np.isfinite(column)] = 0.0
        columns[feature.name] = column


def merge_order(times: NDArray[np.int64], kinds: NDArray[np.int8], event_ids: Sequence[bytes]) -> NDArray[np.int64]:
    """Return the order in which records of several partitions are folded: time, labels before events, event id.

    Stable, and the same whatever the partitions were.
    """
    order = np.lexsort((-kinds, times))
    ordered_times, ordered_kinds = times[order], kinds[order]
    tied = (ordered_times[1:] == ordered_times[:-1]) & (ordered_kinds[1:] == ordered_kinds[:-1])
    if not tied.any():
        return order
    # Ties are rare; only then ids are looked at. Not as a NumPy array: it would drop NULs at the end of an id.
    rows = list(zip(times.tolist(), (-kinds).tolist(), event_ids, strict=True))
    return np.array(sorted(range(len(rows)), key=rows.__getitem__), np.int64)
