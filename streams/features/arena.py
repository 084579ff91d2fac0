"""Where rings lie: blocks of one arena, moved together into a new one when it is full (Numba)."""

import numba
import numpy as np
from numba.core import types
from numpy.typing import NDArray

from streams.kernels import F64, I64, INT, OUT_F64, OUT_I64, kernel

I64s = NDArray[np.int64]
F64s = NDArray[np.float64]
Rings = NDArray[np.void]

SMALLEST_RING = 4

ring_type = np.dtype([("base", "i8"), ("capacity", "i4"), ("first", "i4"), ("size", "i4"), ("tiled", "i4")])
"""Where a ring lies: records base + first … base + first + size - 1 of a block of `capacity` at `base`; and whether
it has tiles, so that nobody needs to look for them."""
RINGS = types.Array(numba.from_dtype(ring_type), 2, "C")


@kernel(INT(RINGS, I64, F64, OUT_I64, OUT_F64))
def compact(rings: Rings, old_times: I64s, old_values: F64s, times: I64s, values: F64s) -> int:
    """Copy every ring into a new arena, at the smallest block that leaves it room to grow; return what is used."""
    used = 0
    for slot in range(rings.shape[0]):
        for which in range(rings.shape[1]):
            ring = rings[slot, which]
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
        for which in range(rings.shape[1]):
            if rings[slot, which]["capacity"] > 0:
                capacity = SMALLEST_RING
                while capacity <= rings[slot, which]["size"]:
                    capacity *= 2
                used += capacity
    return used
