"""The kernel that folds records into entities' rings and reads windows off them (Numba, flat arrays).

Every entity has one *ring* a view: its recent records (time, value) in an arena shared by all, sorted by
time, then value. A feature is a pure function of the ring's content and the event's time, so neither the order
in which records came nor a restart in between can change a bit of it. Reading scans the ring once, newest
first, for all windows of a view.

The first stage has one ring more, after those of its views: the ids of the entity's recent events as hashes.
An event whose id lies in it was folded before.
"""

import numba
import numpy as np
from numba import njit
from numba.core import types
from numpy.typing import NDArray

from streams.features.ids import HORIZON, MOST_IDS
from streams.features.spec import Aggregate, Over
from streams.kernels import F64, F64_2D, I8, I64, INT, OUT_BYTES, OUT_F64, OUT_F64_2D, OUT_FLAGS, OUT_I64, kernel, many

I64s = NDArray[np.int64]
F64s = NDArray[np.float64]
Rings = NDArray[np.void]

EVENT_KIND, LABEL_KIND = int(Over.EVENTS), int(Over.LABELS)
COUNT, SUM, MEAN = int(Aggregate.COUNT), int(Aggregate.SUM), int(Aggregate.MEAN)
STD, MAX = int(Aggregate.STD), int(Aggregate.MAX)
SMALLEST_RING = 4
UNKEPT, UNARCHIVED = 1, 2
CHANGED = UNKEPT | UNARCHIVED
"""What a change makes of an entity: the checkpoint has not kept it, nor has the archive of snapshots."""

ring_type = np.dtype([("base", "i8"), ("capacity", "i8"), ("first", "i8"), ("size", "i8")])
"""Where a ring lies: records base + first … base + first + size - 1 of a block of `capacity` at `base`."""
RINGS = types.Array(numba.from_dtype(ring_type), 2, "C")


@njit(cache=True, inline="always")
def _evict(ring, times, oldest):
    """Drop the records at or before `oldest` from the front."""
    while ring["size"] > 0 and times[ring["base"] + ring["first"]] <= oldest:
        ring["first"] += 1
        ring["size"] -= 1


@njit(cache=True)
def _make_room(ring, times, values, used):
    """Make room for one record more, moving the ring if need be; return what is used, -1 if the arena is full."""
    base, first, size, capacity = ring["base"], ring["first"], ring["size"], ring["capacity"]
    if first + size < capacity:
        return used
    if size * 2 <= capacity and capacity > 0:
        target = base
    else:
        capacity = max(SMALLEST_RING, 2 * capacity)
        target = used
        if used + capacity > times.size:
            return -1
        used += capacity
    for i in range(size):
        times[target + i] = times[base + first + i]
        values[target + i] = values[base + first + i]
    ring["base"], ring["capacity"], ring["first"] = target, capacity, 0
    return used


@njit(cache=True, inline="always")
def _insert(ring, times, values, time, value):
    """Insert in order of (time, value); there is room."""
    start = ring["base"] + ring["first"]
    at = start + ring["size"]
    while at > start and (times[at - 1] > time or (times[at - 1] == time and values[at - 1] > value)):
        times[at] = times[at - 1]
        values[at] = values[at - 1]
        at -= 1
    times[at] = time
    values[at] = value
    ring["size"] += 1


@njit(cache=True, inline="always")
def _newest(ring, times):
    return times[ring["base"] + ring["first"] + ring["size"] - 1]


@njit(cache=True)
def _holds(ring, times, values, oldest, value):
    """Return whether the ring has such a value after `oldest`.

    All are looked at, which the compiler does several at a time.
    """
    found = 0
    start = ring["base"] + ring["first"]
    end = start + ring["size"]
    while start < end and times[start] <= oldest:
        start += 1
    for at in range(start, end):
        found |= values[at] == value
    return found != 0


@njit(cache=True)
def _remember(ring, times, values, time, id_hash):
    """Insert an event's id, unless it is too old; there is room. Return whether it is remembered."""
    if ring["size"] > 0 and _newest(ring, times) - time >= HORIZON:
        return False
    _insert(ring, times, values, time, id_hash)
    if ring["size"] > MOST_IDS:
        ring["first"] += 1
        ring["size"] -= 1
    return True


@njit(cache=True)
def _read(ring, times, values, time, own, windows, aggregates, feature_windows, out):
    """Write the view's features as of `time` into `out`; `own`: the event itself lies in the ring."""
    start = ring["base"] + ring["first"]
    at = start + ring["size"] - 1
    while at >= start and times[at] > time:
        at -= 1
    earlier = at - 1 if own else at
    since = time - times[earlier] if earlier >= start else np.int64(1) << 62
    count, total, largest = 0, 0.0, -np.inf
    # Spread is measured from the newest value, which every window that is not empty holds: measured from 0
    # it would drown in the rounding of the squares.
    shift, shifted, squares = values[at] if at >= start else 0.0, 0.0, 0.0
    feature = 0
    for window in range(windows.size):
        oldest = time - windows[window]
        while at >= start and times[at] > oldest:
            value = values[at]
            count += 1
            total += value
            shifted += value - shift
            squares += (value - shift) * (value - shift)
            largest = max(largest, value)
            at -= 1
        # Features are sorted by window, so each is read off as its window is complete.
        while feature < aggregates.size and feature_windows[feature] == window:
            aggregate = aggregates[feature]
            if aggregate == COUNT:
                result = float(count)
            elif aggregate == SUM:
                result = total
            elif aggregate == MEAN:
                result = total / count if count else 0.0
            elif aggregate == STD:
                mean = shifted / count if count else 0.0
                result = np.sqrt(max(0.0, squares / count - mean * mean)) if count > 1 else 0.0
            elif aggregate == MAX:
                result = largest if count else 0.0
            else:
                result = min(since, windows[window]) / 1000.0
            out[feature] = result
            feature += 1


@kernel(
    many(INT, 2)(
        INT, INT, OUT_I64, I64, I8, I64, F64_2D, F64, RINGS, OUT_I64, OUT_F64, OUT_BYTES, many(I64, 9),
        OUT_FLAGS, OUT_F64_2D,
    )
)
def fold(
    row: int,
    used: int,
    counters: I64s,
    slots: I64s,
    kinds: NDArray[np.int8],
    record_times: I64s,
    record_values: F64s,
    ids: F64s,
    rings: Rings,
    times: I64s,
    values: F64s,
    dirty: NDArray[np.uint8],
    views: tuple[I64s, ...],
    fresh: NDArray[np.bool_],
    out: F64s,
) -> tuple[int, int]:
    """Fold records `row` … in order and read the features of each event; return (next row, used).

    Stops early when the arena is full: the caller makes it larger and calls again from the row returned.
    slots int64[n], kinds int8[n], record_times int64[n] (ms), record_values float64[n, m], ids float64[n] (hashes; none
    of a stage that remembers none); rings ring_type[slot, view]; `fresh` bool[n] becomes False where an event's id is
    remembered: such an event is not folded. `views` is a tuple of one tuple a view: over, value column, keep (ms), windows int64 (ms), aggregates,
    feature windows, columns of `out` float64[n, features]. counters[0] counts records too late for their ring.
    """
    (
        over,
        value_columns,
        keeps,
        windows,
        window_starts,
        aggregates,
        feature_windows,
        feature_starts,
        columns,
    ) = views
    scratch = np.empty(aggregates.size, np.float64)
    while row < slots.size:
        slot, kind, time = slots[row], kinds[row], record_times[row]
        remembers = ids.size > 0 and kind == EVENT_KIND
        if remembers:
            ring = rings[slot, over.size]
            if ring["size"] > 0:
                oldest = max(time, _newest(ring, times)) - HORIZON
                if _holds(ring, times, values, oldest, ids[row]):
                    fresh[row] = False
                    row += 1
                    continue
                _evict(ring, times, oldest)
            grown = _make_room(ring, times, values, used)
            if grown < 0:
                return row, used
            used = grown
        for view in range(over.size):
            if over[view] == kind:
                ring = rings[slot, view]
                if ring["size"] > 0:
                    _evict(ring, times, max(time, _newest(ring, times)) - keeps[view])
                grown = _make_room(ring, times, values, used)
                if grown < 0:
                    return row, used
                used = grown
        # There is room now, so nothing below is done twice.
        if remembers and _remember(rings[slot, over.size], times, values, time, ids[row]):
            dirty[slot] = CHANGED
        for view in range(over.size):
            ring = rings[slot, view]
            own = over[view] == kind
            if own:
                if ring["size"] > 0 and _newest(ring, times) - time >= keeps[view]:
                    counters[0] += 1
                    own = False
                else:
                    # + 0.0 makes -0.0 the 0.0 that it equals: state is compared as bytes.
                    _insert(ring, times, values, time, record_values[row, value_columns[view]] + 0.0)
                    dirty[slot] = CHANGED
            if kind == EVENT_KIND:
                lo, hi = feature_starts[view], feature_starts[view + 1]
                _read(
                    ring, times, values, time, own,
                    windows[window_starts[view] : window_starts[view + 1]],
                    aggregates[lo:hi], feature_windows[lo:hi], scratch[lo:hi],
                )  # fmt: skip
                for feature in range(lo, hi):
                    out[row, columns[feature]] = scratch[feature]
        row += 1
    return row, used


@kernel(INT(RINGS, I64, F64, OUT_I64, OUT_F64))
def compact(rings: Rings, old_times: I64s, old_values: F64s, times: I64s, values: F64s) -> int:
    """Copy every ring into a new arena, at the smallest block that leaves it room to grow; return what is used."""
    used = 0
    for slot in range(rings.shape[0]):
        for view in range(rings.shape[1]):
            ring = rings[slot, view]
            size = ring["size"]
            start = ring["base"] + ring["first"]
            capacity = SMALLEST_RING
            while capacity <= size:
                capacity *= 2
            if ring["capacity"] == 0:
                continue
            times[used : used + size] = old_times[start : start + size]
            values[used : used + size] = old_values[start : start + size]
            ring["base"], ring["first"], ring["capacity"] = used, 0, capacity
            used += capacity
    return used


@kernel(INT(RINGS))
def compacted_size(rings: Rings) -> int:
    """Return how many records `compact` will use."""
    used = 0
    for slot in range(rings.shape[0]):
        for view in range(rings.shape[1]):
            if rings[slot, view]["capacity"] > 0:
                capacity = SMALLEST_RING
                while capacity <= rings[slot, view]["size"]:
                    capacity *= 2
                used += capacity
    return used
