"""Which records of each source were taken: its highest offset, and a window behind it for those overtaken.

Records of a source come at rising offsets, but for a few that later ones overtake by less than `WINDOW`, and any
may come again. The window is that of RFC 4303, 3.4.3 (IPsec's anti-replay service), on offsets.
"""

from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from streams.kernels import FLAG, I64, INT, OUT_BYTES_2D, OUT_FLAGS, OUT_I64, kernel

WINDOW = 8192
"""What lies further back than this counts as taken; 1 kB a source."""

FARTHEST = WINDOW // 2
"""How far a sender may let a record be overtaken: a late former owner of its partition runs ahead by less."""

_NEVER = -1


class Seen:
    """Highest offset taken int64[sources], and a bit for each offset of the window, uint8[sources, WINDOW / 8].

    `width` is the number of bytes a source takes.

    >>> seen = Seen(1)
    >>> [seen.add(0, offset) for offset in (5, 7, 5, 6, 7)]
    [True, True, False, True, False]
    """

    width: Final = 8 + WINDOW // 8

    def __init__(self, sources: int) -> None:
        self.highest: NDArray[np.int64] = np.full(sources, _NEVER, np.int64)
        self._recent: NDArray[np.uint8] = np.zeros((sources, WINDOW // 8), np.uint8)

    @classmethod
    def all_up_to(cls, highest: NDArray[np.int64]) -> Self:
        """Return that of each source everything up to `highest` int64[sources] was taken."""
        seen = cls(highest.size)
        seen.highest[:] = highest
        seen._recent[:] = 0xFF
        return seen

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return what `to_bytes` gave; raise ValueError where it did not."""
        if len(data) % cls.width:
            raise ValueError(f"{len(data)} bytes are no windows of {cls.width}")
        seen = cls(len(data) // cls.width)
        rows = np.frombuffer(data, np.uint8).reshape(-1, cls.width)
        seen.highest[:] = np.ascontiguousarray(rows[:, :8]).view("<i8")[:, 0]
        seen._recent[:] = rows[:, 8:]
        return seen

    def to_bytes(self) -> bytes:
        """Return `width` bytes a source, the same for the same offsets taken, in whatever order."""
        return np.hstack([self.highest.astype("<i8").view(np.uint8).reshape(-1, 8), self._recent]).tobytes()

    def copy(self) -> "Seen":
        """Return a copy that goes its own way."""
        twin = Seen(0)
        twin.highest, twin._recent = self.highest.copy(), self._recent.copy()
        return twin

    def add(self, source: int, offset: int) -> bool:
        """Take one record; return whether it is new. A source not heard of before is made room for."""
        if source >= self.highest.size:
            more = Seen(source + 1 - self.highest.size)
            self.highest = np.concatenate([self.highest, more.highest])
            self._recent = np.concatenate([self._recent, more._recent])
        return bool(_add(source, offset, self.highest, self._recent))

    def take(self, sources: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Take records in their order; return which are new, bool[n]."""
        return _take(sources, offsets, self.highest, self._recent)


@kernel(FLAG(INT, INT, OUT_I64, OUT_BYTES_2D))
def _add(source: int, offset: int, highest: NDArray[np.int64], recent: NDArray[np.uint8]) -> bool:
    if offset > highest[source]:
        # What is skipped has not been taken: it may have been overtaken.
        for skipped in range(max(highest[source] + 1, offset - WINDOW + 1), offset):
            recent[source, skipped % WINDOW >> 3] &= ~(1 << (skipped & 7))
        highest[source] = offset
    elif offset <= highest[source] - WINDOW or recent[source, offset % WINDOW >> 3] & (1 << (offset & 7)):
        return False
    recent[source, offset % WINDOW >> 3] |= 1 << (offset & 7)
    return True


@kernel(OUT_FLAGS(I64, I64, OUT_I64, OUT_BYTES_2D))
def _take(
    sources: NDArray[np.int64], offsets: NDArray[np.int64], highest: NDArray[np.int64], recent: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    new = np.empty(sources.size, np.bool_)
    for i in range(sources.size):
        new[i] = _add(sources[i], offsets[i], highest, recent)
    return new
