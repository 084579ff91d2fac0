"""Hashes of event ids, by which an event that a producer sends twice is told (Numba)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streams.kernels import BYTES, I64, OUT_F64, kernel


def hashes(ids: Sequence[bytes]) -> NDArray[np.float64]:
    """Return a hash of each id, float64[n]: a whole number of 53 bits, which a ring's value holds exactly.

    Two different ids of an entity that remembers 4,096 are taken for one once in 2·10¹² events.
    """
    ends = np.cumsum(np.fromiter(map(len, ids), np.int64, len(ids)))
    return _hashes(np.frombuffer(b"".join(ids), np.uint8), ends)


@kernel(OUT_F64(BYTES, I64))
def _hashes(data: NDArray[np.uint8], ends: NDArray[np.int64]) -> NDArray[np.float64]:
    """The upper 53 bits of FNV-1a, mixed once more (the finalizer of MurmurHash3)."""
    out = np.empty(ends.size, np.float64)
    at = 0
    for i in range(ends.size):
        digest = np.uint64(14695981039346656037)
        while at < ends[i]:
            digest = (digest ^ np.uint64(data[at])) * np.uint64(1099511628211)
            at += 1
        digest = (digest ^ (digest >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
        digest = (digest ^ (digest >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
        digest ^= digest >> np.uint64(33)
        out[i] = np.float64(digest >> np.uint64(11))
    return out
