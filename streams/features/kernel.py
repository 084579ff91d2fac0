"""The kernel that folds records into entities' rings and reads windows off them (Numba, flat arrays).

Every entity has one *ring* a view: its recent records (time, value) in an arena shared by all, sorted by
time, then value. A feature is a pure function of the ring's content and the event's time, so neither the order
in which records came nor a restart in between can change a bit of it. Reading scans the ring once, newest
first, for all windows of a view.

A ring that comes to more than `MOST_RECORDS` gives its older half to *tiles*: `BLOCK` records each, then merged two
by two as they grow older, so that there are at most `TILES_A_LEVEL` of each size. Reading adds whole tiles, and of
the one in which a window begins the share of its time. This is the exponential histogram of Datar, Gionis,
Indyk and Motwani (2002); what it costs in exactness stands in infra/decisions/0008.

The first stage has one ring more: the ids of the entity's recent events as hashes. An event whose id lies in it
was folded before.

All that is compiled into `fold` stands in this file, but for constants: Numba keeps it until this file changes.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from streams.features.arena import FREE, RECORDS_A_TILE, RINGS, SMALLEST_RING, USED, F64s, I64s, Rings
from streams.features.spec import HOUR, Aggregate, Over
from streams.kernels import (
    F64,
    F64_2D,
    FLAG,
    I8,
    I64,
    INT,
    OUT_BYTES,
    OUT_F64,
    OUT_F64_2D,
    OUT_FLAGS,
    OUT_I64,
    VOID,
    kernel,
    many,
)

EVENT_KIND, LABEL_KIND = int(Over.EVENTS), int(Over.LABELS)
COUNT, SUM, MEAN = int(Aggregate.COUNT), int(Aggregate.SUM), int(Aggregate.MEAN)
STD, MAX = int(Aggregate.STD), int(Aggregate.MAX)
SINCE_POSITIVE = int(Aggregate.SINCE_POSITIVE)  # SINCE_NEGATIVE is the only one above it

MOST_RECORDS = 512
"""How many records a ring has before its older half becomes tiles: up to then features are exact."""
BLOCK, TILES_A_LEVEL = 16, 16
NEW_TILES = MOST_RECORDS // 2 // BLOCK
TILE = RECORDS_A_TILE
"""A tile is three records of the arena: (time of its oldest, mean), (time of its newest, sum of the squared
distances from the mean), (count · 64 + level, largest)."""

HORIZON = HOUR
"""How much older (ms) than its entity's newest event an event may be for its id to be remembered."""
MOST_IDS = 4096
"""How many ids of one entity are remembered, the newest."""


@njit(cache=True, inline="always")
def _evict(ring, times, oldest):
    """Drop the records at or before `oldest` from the front."""
    while ring["size"] > 0 and times[ring["base"] + ring["first"]] <= oldest:
        ring["first"] += 1
        ring["size"] -= 1


@njit(cache=True)
def _list_of(capacity):
    """Return where in `blocks` the list of free blocks of so many records, a power of two, begins."""
    at = FREE
    while 1 << (at - FREE) < capacity:
        at += 1
    return at


@njit(cache=True)
def _take(capacity, times, blocks):
    """Return where a block begins that nobody has, -1 if the arena is full."""
    free = _list_of(capacity)
    base = blocks[free]
    if base >= 0:
        blocks[free] = times[base]  # a free block begins with where the next one is
    elif blocks[USED] + capacity <= times.size:
        base = blocks[USED]
        blocks[USED] += capacity
    return base


@njit(cache=True)
def _give(base, capacity, times, blocks):
    """Let others have a block."""
    if capacity > 0:
        free = _list_of(capacity)
        times[base] = blocks[free]
        blocks[free] = base


@njit(cache=True)
def _leave(ring, times, blocks):
    """Empty a ring and let others have its block."""
    _give(ring["base"], ring["capacity"], times, blocks)
    ring["base"], ring["capacity"], ring["first"], ring["size"], ring["tiled"] = 0, 0, 0, 0, 0


@njit(cache=True)
def _make_room(ring, times, values, blocks, room):
    """Make room for `room` records more, moving the ring if need be; return False if the arena is full.

    A ring that fills less than an eighth of its block, as after a burst, moves to one of a quarter.
    """
    base, first, size, capacity = ring["base"], ring["first"], ring["size"], ring["capacity"]
    sparse = capacity > 4 * SMALLEST_RING and (size + room) * 8 <= capacity
    if first + size + room <= capacity and not sparse:
        return True
    target, other = base, capacity
    if sparse:
        other = capacity // 4
    elif (size + room) * 2 > capacity:
        other = max(SMALLEST_RING, 2 * capacity)
        while other < size + room:
            other *= 2
    if other != capacity:
        target = _take(other, times, blocks)
        if target < 0:
            return False
    for i in range(size):
        times[target + i] = times[base + first + i]
        values[target + i] = values[base + first + i]
    if other != capacity:
        _give(base, capacity, times, blocks)
    ring["base"], ring["capacity"], ring["first"] = target, other, 0
    return True


@kernel(VOID(I64, RINGS, OUT_I64, OUT_I64))
def release(slots: I64s, rings: Rings, times: I64s, blocks: I64s) -> None:
    """Empty the rings of `slots` and let others have their blocks."""
    for slot in slots:
        for which in range(rings.shape[1]):
            _leave(rings[slot, which], times, blocks)


@kernel(FLAG(INT, I64, RINGS, OUT_I64, OUT_I64))
def place(slot: int, counts: I64s, rings: Rings, times: I64s, blocks: I64s) -> bool:
    """Give each ring of an empty slot a block for `counts` records and room to grow; return False, and give it none,
    if the arena is full."""
    for which in range(counts.size):
        if counts[which] > 0:
            capacity = SMALLEST_RING
            while capacity <= counts[which]:
                capacity *= 2
            base = _take(capacity, times, blocks)
            if base < 0:
                for earlier in range(which):
                    _leave(rings[slot, earlier], times, blocks)
                return False
            ring = rings[slot, which]
            ring["base"], ring["capacity"] = base, capacity
    return True


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
def _oldest(ring, times):
    return times[ring["base"] + ring["first"]]


@njit(cache=True, inline="always")
def _newest(ring, times):
    return times[ring["base"] + ring["first"] + ring["size"] - 1]


@njit(cache=True)
def _holds(ring, times, values, time, id_bits):
    """Return whether the ring of ids has such a hash that is still remembered at `time`.

    All are looked at, as integers: the compiler does that several at a time.
    """
    if ring["size"] == 0:
        return False
    start = ring["base"] + ring["first"]
    end = start + ring["size"]
    oldest = max(time, times[end - 1]) - HORIZON
    while start < end and times[start] <= oldest:
        start += 1
    held = values[start:end].view(np.int64)
    found = np.int64(0)
    for at in range(held.size):
        found += np.int64(held[at] == id_bits)
    return found > 0


@njit(cache=True)
def _evict_tiles(ring, tiles, times, oldest):
    """Drop the tiles with no record after `oldest`."""
    while tiles["size"] > 0 and times[tiles["base"] + tiles["first"] + 1] <= oldest:
        tiles["first"] += TILE
        tiles["size"] -= TILE
    ring["tiled"] = tiles["size"] > 0


@njit(cache=True)
def _merge(times, values, into, other):
    """Make one tile of two neighbours, the older one first."""
    n, m = times[into + 2] >> 6, times[other + 2] >> 6
    distance = values[other] - values[into]
    values[into + 1] += values[other + 1] + distance * distance * n * m / (n + m)
    values[into] += distance * m / (n + m)
    times[into + 1] = times[other + 1]
    times[into + 2] = ((n + m) << 6) + (times[into + 2] & 63) + 1
    values[into + 2] = max(values[into + 2], values[other + 2])


@njit(cache=True)
def _level_out(tiles, times, values):
    """Merge the two oldest tiles of every level, the newest first, that has more than `TILES_A_LEVEL`."""
    start = tiles["base"] + tiles["first"]
    end = start + tiles["size"]
    level = 0
    while True:
        begin = end
        while begin > start and times[begin - TILE + 2] & 63 == level:
            begin -= TILE
        if end - begin <= TILE * TILES_A_LEVEL:
            return
        _merge(times, values, begin, begin + TILE)
        tiles["size"] -= TILE
        for at in range(begin + TILE, start + tiles["size"]):
            times[at] = times[at + TILE]
            values[at] = values[at + TILE]
        end = begin + TILE
        level += 1


@njit(cache=True)
def _tile(ring, tiles, times, values):
    """Turn the older half of a ring into tiles; there is room."""
    for _ in range(NEW_TILES):
        start = ring["base"] + ring["first"]
        total, largest = 0.0, -np.inf
        for at in range(start, start + BLOCK):
            total += values[at]
            largest = max(largest, values[at])
        mean, squares = total / BLOCK, 0.0
        for at in range(start, start + BLOCK):
            squares += (values[at] - mean) * (values[at] - mean)
        at = tiles["base"] + tiles["first"] + tiles["size"]
        times[at], values[at] = times[start], mean
        times[at + 1], values[at + 1] = times[start + BLOCK - 1], squares
        times[at + 2], values[at + 2] = BLOCK << 6, largest
        tiles["size"] += TILE
        ring["first"] += BLOCK
        ring["size"] -= BLOCK
        _level_out(tiles, times, values)
    ring["tiled"] = 1


@njit(cache=True)
def _add_late(tiles, times, values, time, value):
    """Add a record older than the ring to the tile of its time: the newest that begins no later."""
    start = tiles["base"] + tiles["first"]
    at = start + tiles["size"] - TILE
    while at > start and times[at] > time:
        at -= TILE
    n = times[at + 2] >> 6
    distance = value - values[at]
    values[at] += distance / (n + 1)
    values[at + 1] += distance * (value - values[at])
    values[at + 2] = max(values[at + 2], value)
    times[at], times[at + 1] = min(times[at], time), max(times[at + 1], time)
    times[at + 2] += 64


@njit(cache=True)
def _add_tile(times, values, at, oldest, time, shift, sums):
    """Add to (count, total, shifted, squares, largest) what of the tile at `at` lies in (oldest, time].

    Of a tile that lies there in part its records are taken to be spread evenly over its time.
    """
    count, total, shifted, squares, largest = sums
    first, last, whole = times[at], times[at + 1], times[at + 2] >> 6
    n, part = float(whole), 1.0
    if first <= oldest or last > time:
        part = (min(last, time) - max(first - 1, oldest)) / (last - first + 1)
        n = max(1.0, min(n - 1.0, np.rint(n * part)))
        part = n / whole
    distance = values[at] - shift
    return (
        count + n,
        total + n * values[at],
        shifted + n * distance,
        squares + part * values[at + 1] + n * distance * distance,
        max(largest, values[at + 2]),
    )


@njit(cache=True)
def _since_tile(tile, first_tile, times, time):
    """Return the time since the newest record by `time`, which lies in `tile`, the newest that begins by then."""
    if tile < first_tile:
        return np.int64(1) << 62
    first, last = times[tile], times[tile + 1]
    # Between a tile's records: their mean distance.
    return time - last if last < time else (last - first) // (times[tile + 2] >> 6)


@njit(cache=True)
def _read(ring, times, values, time, own, windows, aggregates, feature_windows, out):
    """Write the view's features as of `time` into `out`; `own`: the event itself lies in the ring."""
    start = ring["base"] + ring["first"]
    at = start + ring["size"] - 1
    while at >= start and times[at] > time:
        at -= 1
    earlier = at - 1 if own else at
    since = time - times[earlier] if earlier >= start else np.int64(1) << 62
    # Spread is measured from the newest value, which every window that is not empty holds: measured from 0
    # it would drown in the rounding of the squares.
    shift = values[at] if at >= start else 0.0
    count, total, shifted, squares, largest = 0, 0.0, 0.0, 0.0, -np.inf
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
            out[feature] = _value(
                aggregates[feature], float(count), total, shifted, squares, largest, since, windows[window]
            )
            feature += 1


@njit(cache=True)
def _read_tiled(ring, tiles, times, values, time, own, windows, aggregates, feature_windows, out):
    """Do what `_read` does where there are tiles too."""
    start = ring["base"] + ring["first"]
    at = start + ring["size"] - 1
    while at >= start and times[at] > time:
        at -= 1
    first_tile = tiles["base"] + tiles["first"]
    tile = first_tile + tiles["size"] - TILE
    while tile >= first_tile and times[tile] > time:
        tile -= TILE
    earlier = at - 1 if own else at
    since = time - times[earlier] if earlier >= start else _since_tile(tile, first_tile, times, time)
    shift = values[at] if at >= start else values[tile] if tile >= first_tile else 0.0
    count, total, shifted, squares, largest = 0.0, 0.0, 0.0, 0.0, -np.inf
    feature = 0
    for window in range(windows.size):
        oldest = time - windows[window]
        while at >= start and times[at] > oldest:
            value = values[at]
            count += 1.0
            total += value
            shifted += value - shift
            squares += (value - shift) * (value - shift)
            largest = max(largest, value)
            at -= 1
        sums = (count, total, shifted, squares, largest)
        if at < start:
            while tile >= first_tile and times[tile] > oldest:
                sums = _add_tile(times, values, tile, oldest, time, shift, sums)
                tile -= TILE
            count, total, shifted, squares, largest = sums
            if tile >= first_tile and times[tile + 1] > oldest:
                sums = _add_tile(times, values, tile, oldest, time, shift, sums)
        while feature < aggregates.size and feature_windows[feature] == window:
            out[feature] = _value(
                aggregates[feature], sums[0], sums[1], sums[2], sums[3], sums[4], since, windows[window]
            )
            feature += 1


@njit(cache=True)
def _since_label(ring, tiles, times, values, time, positive, length):
    """Return the seconds since the newest positive or negative by `time`, at most the window's length (ms)."""
    start = ring["base"] + ring["first"]
    at = start + ring["size"] - 1
    while at >= start and (times[at] > time or (values[at] > 0) != positive):
        at -= 1
    since = time - times[at] if at >= start else np.int64(1) << 62
    if at < start and ring["tiled"]:
        first_tile = tiles["base"] + tiles["first"]
        tile = first_tile + tiles["size"] - TILE
        # A tile knows that it holds such a label, and counts as if that were its newest.
        while tile >= first_tile:
            if times[tile] <= time and (values[tile + 2] > 0 if positive else values[tile] < 1):
                break
            tile -= TILE
        if tile >= first_tile:
            since = max(time - times[tile + 1], 0)
    return min(since, length) / 1000.0


@njit(cache=True, inline="always")
def _value(aggregate, count, total, shifted, squares, largest, since, length):
    if aggregate == COUNT:
        result = count
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
        result = min(since, length) / 1000.0
    return result


@kernel(
    INT(
        INT, OUT_I64, I64, I8, I64, F64_2D, F64, RINGS, OUT_I64, OUT_F64, OUT_I64, OUT_BYTES, many(I64, 9), OUT_FLAGS,
        OUT_F64_2D,
    )
)  # fmt: skip
def fold(  # noqa: PLR0912, PLR0915 - spelt out what every event passes: in functions it took a fifth longer
    row: int,
    counters: I64s,
    slots: I64s,
    kinds: NDArray[np.int8],
    record_times: I64s,
    record_values: F64s,
    ids: F64s,
    rings: Rings,
    times: I64s,
    values: F64s,
    blocks: I64s,
    dirty: NDArray[np.uint8],
    views: tuple[I64s, ...],
    fresh: NDArray[np.bool_],
    out: F64s,
) -> int:
    """Fold records `row` … in order and read the features of each event; return the next row.

    Stops early when the arena is full: the caller makes it larger and calls again from the row returned.
    slots int64[n], kinds int8[n], record_times int64[n] (ms), record_values float64[n, m], ids float64[n] (hashes; none
    of a stage that tells none). rings ring_type[slot, …]: one a view, that of the ids where the stage tells them, the
    tiles of each view. times, values and blocks are the arena's. `views` is a tuple of one tuple a view: over, value
    column, keep (ms), windows int64 (ms), aggregates, feature windows, columns of `out` float64[n, features]. fresh
    bool[n] becomes False where an event's id is remembered: such an event is not folded. counters[0] counts records
    too late for their ring.
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
    first_tiles = rings.shape[1] - over.size
    scratch, id_bits = np.empty(aggregates.size, np.float64), ids.view(np.int64)
    while row < slots.size:
        slot, kind, time = slots[row], kinds[row], record_times[row]
        told = ids.size > 0 and kind == EVENT_KIND
        if told and _holds(rings[slot, over.size], times, values, time, id_bits[row]):
            fresh[row] = False
            row += 1
            continue
        for view in range(over.size):
            if over[view] == kind:
                ring = rings[slot, view]
                if ring["size"] > 0:
                    oldest = max(time, _newest(ring, times)) - keeps[view]
                    _evict(ring, times, oldest)
                    if ring["tiled"]:
                        _evict_tiles(ring, rings[slot, first_tiles + view], times, oldest)
                        if not ring["tiled"]:
                            _leave(rings[slot, first_tiles + view], times, blocks)
                if not _make_room(ring, times, values, blocks, 1):
                    return row
                if ring["size"] == MOST_RECORDS:
                    tiles = rings[slot, first_tiles + view]
                    if not _make_room(tiles, times, values, blocks, TILE * NEW_TILES):
                        return row
        if told:
            ring = rings[slot, over.size]
            if ring["size"] > 0:
                _evict(ring, times, max(time, _newest(ring, times)) - HORIZON)
            if not _make_room(ring, times, values, blocks, 1):
                return row
            # There is room now, so nothing from here on is done twice.
            if ring["size"] == 0 or _newest(ring, times) - time < HORIZON:
                _insert(ring, times, values, time, ids[row])
                if ring["size"] > MOST_IDS:
                    ring["first"] += 1
                    ring["size"] -= 1
                dirty[slot] = 1
        for view in range(over.size):
            ring, tiles = rings[slot, view], rings[slot, first_tiles + view]
            own = over[view] == kind
            if own:
                if ring["size"] > 0 and _newest(ring, times) - time >= keeps[view]:
                    counters[0] += 1
                    own = False
                else:
                    # + 0.0 makes -0.0 the 0.0 that it equals: state is compared as bytes.
                    value = record_values[row, value_columns[view]] + 0.0
                    if ring["tiled"] and time < _oldest(ring, times):
                        _add_late(tiles, times, values, time, value)
                    else:
                        _insert(ring, times, values, time, value)
                    if ring["size"] > MOST_RECORDS:
                        _tile(ring, tiles, times, values)
                    dirty[slot] = 1
            if kind == EVENT_KIND:
                lo, hi = feature_starts[view], feature_starts[view + 1]
                of_view = windows[window_starts[view] : window_starts[view + 1]]
                if ring["tiled"]:
                    _read_tiled(
                        ring, tiles, times, values, time, own, of_view, aggregates[lo:hi], feature_windows[lo:hi],
                        scratch[lo:hi],
                    )  # fmt: skip
                else:
                    _read(
                        ring, times, values, time, own, of_view, aggregates[lo:hi], feature_windows[lo:hi],
                        scratch[lo:hi],
                    )  # fmt: skip
                for feature in range(lo, hi):
                    if aggregates[feature] >= SINCE_POSITIVE:
                        positive = aggregates[feature] == SINCE_POSITIVE
                        length = of_view[feature_windows[feature]]
                        scratch[feature] = _since_label(ring, tiles, times, values, time, positive, length)
                    out[row, columns[feature]] = scratch[feature]
        row += 1
    return row
