"""The gate of a stage that many partitions feed: drop what was seen, and wait for whom a watermark promises more.

Without watermarks rows pass as they come. As soon as one source has sent a watermark, rows are held until every
source has one beyond them, and pass in `merge_order`: then the stage's features do not depend on how fast each
partition was, and equal a backtest's bit for bit (decision D3).
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from streams.features.vector import merge_order
from streams.runtime.hop import END_OF_WATERMARKS, SOURCE_TOPICS, WATERMARK, HopRows

NEVER, ENDED = -1, np.iinfo(np.int64).max
"""A source's watermark before its first and after its last."""


@dataclass(frozen=True)
class Marks:
    """What a checkpoint keeps of the gate: per source the highest offset folded, and its watermark (ms)."""

    folded: NDArray[np.int64]
    watermarks: NDArray[np.int64]

    def to_bytes(self) -> bytes:
        """Return both arrays as little-endian bytes."""
        return np.concatenate([self.folded, self.watermarks]).astype("<i8").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, sources: int) -> "Marks":
        """Return the marks in `data`, none where it is empty; raise ValueError where it is of other sources."""
        if not data:
            return cls(np.full(sources, -1, np.int64), np.full(sources, NEVER, np.int64))
        marks = np.frombuffer(data, "<i8").astype(np.int64)
        if marks.size != 2 * sources:
            raise ValueError(f"marks of {marks.size // 2} sources, not of {sources}: the partition count has changed")
        return cls(marks[:sources], marks[sources:])


class Gate:
    """Order and de-duplicate the rows of one partition of a hop topic; pure, it knows no clock."""

    def __init__(self, partitions: int, marks: Marks | None = None) -> None:
        self._partitions = partitions
        self._marks = marks or Marks.from_bytes(b"", SOURCE_TOPICS * partitions)
        self._seen = self._marks.folded.copy()
        self._latest = np.full(self._seen.size, NEVER, np.int64)
        self._held: list[tuple[HopRows, NDArray[np.int64]]] = []
        self.duplicates = 0

    @property
    def held(self) -> int:
        """How many rows wait."""
        return sum(len(rows) for rows, _ in self._held)

    def marks(self) -> Marks:
        """Return what a checkpoint is to keep now."""
        return Marks(self._marks.folded.copy(), self._marks.watermarks.copy())

    def resume_at(self, next_offset: int) -> int:
        """Return where to read on after a restart: at the first row held, or else at `next_offset`."""
        return min((int(rows.positions.min()) for rows, _ in self._held if len(rows)), default=next_offset)

    def receive(self, rows: HopRows) -> HopRows:
        """Take rows in and return those that may be folded now, in order."""
        sources = self._sources(rows)
        fresh = _accept(sources, rows.source_offsets, self._seen)
        if not fresh.all():
            self.duplicates += int(len(rows) - fresh.sum())
            rows, sources = rows.take(np.flatnonzero(fresh)), sources[fresh]
        promises = rows.kinds == WATERMARK
        if promises.any():
            times = rows.times[promises]
            # Of several promises of one source the last assignment, the newest, counts.
            self._marks.watermarks[sources[promises]] = np.where(times == END_OF_WATERMARKS, ENDED, times)
            others = np.flatnonzero(~promises)
            rows, sources = rows.take(others), sources[others]
        waiting = self._waiting()
        if not self._held and not waiting:
            _raise_marks(sources, rows.source_offsets, self._marks.folded)
            return rows
        if len(rows) or not self._held:
            self._held.append((rows, _running_latest(sources, rows.times, self._latest)))
        return self._release(int(self._marks.watermarks.min()) if waiting else ENDED)

    def give_up(self) -> HopRows:
        """Forget every promise and return what was held for them; a new watermark closes the gate again."""
        self._marks.watermarks[:] = NEVER
        return self._release(ENDED)

    def _sources(self, rows: HopRows) -> NDArray[np.int64]:
        return rows.source_topics * self._partitions + rows.source_partitions

    def _waiting(self) -> bool:
        """Say whether any source has promised more; forget the promises when the last has ended."""
        watermarks = self._marks.watermarks
        if ((watermarks != NEVER) & (watermarks != ENDED)).any():
            return True
        watermarks[:] = NEVER
        return False

    def _release(self, bound: int) -> HopRows:
        """Return the rows held for a time before `bound`, in order."""
        rows = HopRows.concatenate([rows for rows, _ in self._held])
        times = np.concatenate([times for _, times in self._held])
        waiting = np.flatnonzero(times >= bound)
        self._held = [(rows.take(waiting), times[waiting])] if waiting.size else []
        going = np.flatnonzero(times < bound)
        ids = [rows.texts[0][row].encode() for row in going.tolist()]
        rows = rows.take(going[merge_order(times[going], rows.kinds[going], ids)])
        _raise_marks(self._sources(rows), rows.source_offsets, self._marks.folded)
        return rows


@njit(cache=True)
def _accept(sources, offsets, seen):  # type: ignore[no-untyped-def]
    """Return which rows are new, and raise `seen` to them."""
    fresh = np.empty(sources.size, np.bool_)
    for i in range(sources.size):
        fresh[i] = offsets[i] > seen[sources[i]]
        if fresh[i]:
            seen[sources[i]] = offsets[i]
    return fresh


@njit(cache=True)
def _raise_marks(sources, offsets, marks):  # type: ignore[no-untyped-def]
    for i in range(sources.size):
        marks[sources[i]] = max(marks[sources[i]], offsets[i])


@njit(cache=True)
def _running_latest(sources, times, latest):  # type: ignore[no-untyped-def]
    """Return per row the latest time of its source so far: a late row goes when its source's order allows."""
    out = np.empty(sources.size, np.int64)
    for i in range(sources.size):
        latest[sources[i]] = max(latest[sources[i]], times[i])
        out[i] = latest[sources[i]]
    return out
