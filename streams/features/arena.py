"""Where rings lie: blocks of one arena, of 4, 8, 16, … records; what a ring leaves another takes.

While it grows nothing is copied but the ring that needs more, and no event waits for the rest: when the arena is full
its pages are mapped at another address, where there is more room. Only when three quarters of it are free, as many
entities have left, all rings are moved into a smaller one.
"""

import mmap

import numba
import numpy as np
from numba import njit
from numba.core import types
from numpy.typing import NDArray

from streams.kernels import F64, I64, INT, OUT_F64, OUT_I64, kernel

I64s = NDArray[np.int64]
F64s = NDArray[np.float64]
Rings = NDArray[np.void]

# kernel.py is compiled with these constants, and compiled anew only when it is touched.
SMALLEST_RING, RECORDS_A_TILE = 4, 3
USED, FREE = 0, 1
"""In `Arena.blocks`: how much of the arena was ever taken; from `FREE` on, where the first free block of 1, 2, 4, …
records is, -1 for none."""
FIRST_SIZE, GROWTH = 1024, 1 << 14
"""In records; `GROWTH` is as much as a ring of `kernel.MOST_IDS` asks for at once."""

ring_type = np.dtype([("base", "i8"), ("capacity", "i4"), ("first", "i4"), ("size", "i4"), ("tiled", "i4")])
"""Where a ring lies: records base + first … base + first + size - 1 of a block of `capacity` at `base`; and whether
it has tiles, so that nobody needs to look for them."""
RINGS = types.Array(numba.from_dtype(ring_type), 2, "C")


class Arena:
    """Records as times int64 and values float64 of one length, and which blocks of them are taken."""

    def __init__(self, size: int = FIRST_SIZE) -> None:
        self._memory = [_mapped(8 * size), _mapped(8 * size)]
        self._look()
        self.blocks = np.full(FREE + 32, -1, np.int64)
        self.blocks[USED] = 0

    def grow(self) -> None:
        """Make room for another block; no view of the arrays may be in use."""
        size = self.times.size + max(GROWTH, self.times.size // 2)
        del self.times, self.values  # what is being looked at cannot be resized
        self._memory = [_resized(part, 8 * size) for part in self._memory]
        self._look()

    def compacted(self, rings: Rings) -> "Arena":
        """Return the arena; or, if its rings need less than a quarter of it, one of twice what they need, with them."""
        used = _compacted_size(rings)
        if self.times.size <= max(2 * GROWTH, 4 * used):
            return self
        smaller = Arena(2 * used + FIRST_SIZE)
        smaller.blocks[USED] = _compact(rings, self.times, self.values, smaller.times, smaller.values)
        return smaller

    def _look(self) -> None:
        self.times: I64s = np.frombuffer(self._memory[0], np.int64)
        self.values: F64s = np.frombuffer(self._memory[1], np.float64)


def _mapped(size: int) -> mmap.mmap:
    """Return zeroed memory whose pages exist once they are written."""
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _resized(memory: mmap.mmap, size: int) -> mmap.mmap:
    try:
        memory.resize(size)
    except (SystemError, AttributeError):  # where pages cannot be mapped anew, as on macOS
        larger = _mapped(size)
        larger[: len(memory)] = memory[:]
        return larger
    return memory


@njit(cache=True, inline="always")
def _block_for(size: int) -> int:
    """Return the smallest block that leaves a ring of `size` records room to grow."""
    capacity = SMALLEST_RING
    while capacity <= size:
        capacity *= 2
    return capacity


@kernel(INT(RINGS, I64, F64, OUT_I64, OUT_F64))
def _compact(rings: Rings, old_times: I64s, old_values: F64s, times: I64s, values: F64s) -> int:
    """Copy every ring into a new arena, at the smallest block that leaves it room; return what is used."""
    used = 0
    for slot in range(rings.shape[0]):
        for which in range(rings.shape[1]):
            ring = rings[slot, which]
            if ring["capacity"] == 0:
                continue
            size, start = ring["size"], ring["base"] + ring["first"]
            times[used : used + size] = old_times[start : start + size]
            values[used : used + size] = old_values[start : start + size]
            ring["base"], ring["first"], ring["capacity"] = used, 0, _block_for(size)
            used += ring["capacity"]
    return used


@kernel(INT(RINGS))
def _compacted_size(rings: Rings) -> int:
    """Return how many records `_compact` will use."""
    used = 0
    for slot in range(rings.shape[0]):
        for which in range(rings.shape[1]):
            if rings[slot, which]["capacity"] > 0:
                used += _block_for(rings[slot, which]["size"])
    return used
