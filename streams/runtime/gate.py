"""The gate of a stage that many partitions feed: drop what was seen, and wait for whom a watermark promises more.

Without watermarks rows pass as they come. As soon as one source has sent a watermark, rows are held until every
source has one beyond them, and pass in `merge_order`: then the stage's features do not depend on how fast each
partition was, and equal a backtest's bit for bit (decision D3). When every source has ended its promise, rows pass
as they come again.

Events of a source come in its order, so that its highest offset tells what was seen. A label may have been overtaken
by later ones of its partition, as it waited for its event: of labels a window of offsets is kept (`features.seen`).
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from streams.features.seen import Seen
from streams.features.table import StateRefused
from streams.features.vector import merge_order
from streams.kernels import I64, INT, OUT_FLAGS, OUT_I64, OUT_I64_2D, VOID, kernel
from streams.runtime.hop import END_OF_WATERMARKS, FROM_LABELS, LABEL, SOURCE_TOPICS, WATERMARK, HopRows

NEVER, ENDED = -1, np.iinfo(np.int64).max
"""A source's watermark before its first and after its last."""


@dataclass(frozen=True)
class Marks:
    """What a checkpoint keeps of the gate: per source the highest offset folded, and its watermark (ms); and
    which labels were folded of each partition of the label topic."""

    folded: NDArray[np.int64]
    watermarks: NDArray[np.int64]
    labels: Seen

    def to_bytes(self) -> bytes:
        """Return both arrays as little-endian bytes, and the labels'."""
        return np.concatenate([self.folded, self.watermarks]).astype("<i8").tobytes() + self.labels.to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes, sources: int) -> "Marks":
        """Return the marks in `data`, none where it is empty; raise StateRefused where it is of other sources."""
        partitions = sources // SOURCE_TOPICS
        if not data:
            return cls(np.full(sources, -1, np.int64), np.full(sources, NEVER, np.int64), Seen(partitions))
        bare = len(data) == 16 * sources  # as they were kept when no label overtook another
        if not bare and len(data) != 16 * sources + Seen.width * partitions:
            found = len(data) * SOURCE_TOPICS // (16 * SOURCE_TOPICS + Seen.width)
            raise StateRefused(f"marks of {found} sources, not of {sources}: the partition count has changed")
        arrays, labels = data[: 16 * sources], data[16 * sources :]
        marks = np.frombuffer(arrays, "<i8").astype(np.int64)
        folded, watermarks = marks[:sources], marks[sources:]
        seen = Seen.all_up_to(folded[-partitions:]) if bare else Seen.from_bytes(labels)
        return cls(folded, watermarks, seen)


class Gate:
    """Order and de-duplicate the rows of one partition of a hop topic; pure, it knows no clock."""

    def __init__(self, partitions: int, marks: Marks | None = None) -> None:
        self._partitions = partitions
        self._marks = marks or Marks.from_bytes(b"", SOURCE_TOPICS * partitions)
        self._seen = self._marks.folded.copy()
        self._labels_seen = self._marks.labels.copy()
        self._latest = np.full(self._seen.size, NEVER, np.int64)
        self._held: list[tuple[HopRows, NDArray[np.int64]]] = []
        self.duplicates = 0

    @property
    def held(self) -> int:
        """How many events and labels wait."""
        return sum(int((rows.kinds != WATERMARK).sum()) for rows, _ in self._held)

    def marks(self) -> Marks:
        """Return what a checkpoint is to keep now."""
        return Marks(self._marks.folded.copy(), self._marks.watermarks.copy(), self._marks.labels.copy())

    def resume_at(self, next_offset: int) -> int:
        """Return where to read on after a restart: at the first row held, or else at `next_offset`."""
        return min((int(rows.positions.min()) for rows, _ in self._held if len(rows)), default=next_offset)

    def receive(self, rows: HopRows) -> HopRows:
        """Take rows in and return those that may be folded now, in order, however they were cut into batches.

        Raises LookupError of a row whose source there is not.
        """
        if (rows.source_partitions >= self._partitions).any():
            raise LookupError(f"a row of source partition {rows.source_partitions.max()}, of {self._partitions}")
        fresh = self._accept(rows)
        if not fresh.all():
            self.duplicates += int(len(rows) - fresh.sum())
            rows = rows.take(np.flatnonzero(fresh))
        promises = np.flatnonzero(rows.kinds == WATERMARK)
        if not promises.size:
            return self._pass(rows) if self._open else self._hold(rows)
        # The first promise closes the gate for the rows after it, the end of the last one opens it.
        ends = rows.times[promises] == END_OF_WATERMARKS
        parts = []
        for start, end in pairwise([0, *(promises[ends] + 1).tolist(), len(rows)]):
            first = start
            if self._open:
                first = min((row for row in promises[~ends].tolist() if start <= row < end), default=end)
                parts.append(self._pass(rows.take(np.arange(start, first))))
            parts.append(self._hold(rows.take(np.arange(first, end))))
        return HopRows.concatenate(parts)

    def give_up(self) -> HopRows:
        """Forget every promise and return what was held for them; a new watermark closes the gate again."""
        self._forget_promises()
        return self._release(ENDED)

    def lie_in(self, seen: NDArray[np.int64], folded: NDArray[np.int64], watermarks: NDArray[np.int64]) -> None:
        """Keep what is known of the sources in these arrays from now on."""
        seen[:], folded[:], watermarks[:] = self._seen, self._marks.folded, self._marks.watermarks
        self._seen, self._marks = seen, Marks(folded, watermarks, self._marks.labels)

    @property
    def _open(self) -> bool:
        return bool((self._marks.watermarks == NEVER).all())

    def _sources(self, rows: HopRows) -> NDArray[np.int64]:
        return rows.source_topics * self._partitions + rows.source_partitions

    def take_labels(self, partitions: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Note labels as seen and folded, by their places in the label topic; return which are new."""
        fresh = self._labels_seen.take(partitions, offsets)
        self._marks.labels.take(partitions[fresh], offsets[fresh])
        return fresh

    def _accept(self, rows: HopRows) -> NDArray[np.bool_]:
        """Return which rows are new, and note them as seen."""
        fresh = _accept(self._sources(rows), rows.source_offsets, self._seen)
        labels = np.flatnonzero(rows.source_topics == FROM_LABELS)
        if labels.size:
            fresh[labels] = self._labels_seen.take(rows.source_partitions[labels], rows.source_offsets[labels])
        return fresh

    def _raise_marks(self, rows: HopRows) -> None:
        """Note rows as folded."""
        _raise_marks(self._sources(rows), rows.source_offsets, self._marks.folded)
        labels = np.flatnonzero(rows.source_topics == FROM_LABELS)
        if labels.size:
            self._marks.labels.take(rows.source_partitions[labels], rows.source_offsets[labels])

    def _pass(self, rows: HopRows) -> HopRows:
        self._raise_marks(rows)
        return rows.take(np.flatnonzero(rows.kinds != WATERMARK)) if (rows.kinds == WATERMARK).any() else rows

    def _hold(self, rows: HopRows) -> HopRows:
        """Take in rows that wait, and return those that wait no longer."""
        sources, promises = self._sources(rows), rows.kinds == WATERMARK
        times = rows.times[promises]
        # Of several promises of one source the last assignment, the newest, counts.
        self._marks.watermarks[sources[promises]] = np.where(times == END_OF_WATERMARKS, ENDED, times)
        # A promise waits with its source's rows: after a restart it counts as seen when they do.
        times = _running_latest(sources, np.where(promises, NEVER, rows.times), self._latest)
        times = np.where(rows.kinds == LABEL, rows.times, times)  # whichever of them came first
        self._held.append((rows, times))
        bound = int(self._marks.watermarks.min())
        if bound == ENDED:
            self._forget_promises()
        return self._release(bound)

    def _forget_promises(self) -> None:
        """Open the gate. Whoever promises next may begin at any time, as a second replay does."""
        self._marks.watermarks[:] = NEVER
        self._latest[:] = NEVER

    def _release(self, bound: int) -> HopRows:
        """Return the rows held for a time before `bound`, in order."""
        if not any((times < bound).any() for _, times in self._held):
            return self._held[0][0].take(np.empty(0, np.int64))
        held = HopRows.concatenate([rows for rows, _ in self._held])
        times = np.concatenate([times for _, times in self._held])
        waiting, going = np.flatnonzero(times >= bound), np.flatnonzero(times < bound)
        self._held = [(held.take(waiting), times[waiting])] if waiting.size else []
        self._raise_marks(held.take(going))
        going = going[held.kinds[going] != WATERMARK]
        ids = [held.texts[0][row].encode() for row in going.tolist()]
        return held.take(going[merge_order(times[going], held.kinds[going], ids)])


class Gates:
    """The gates of the partitions of a stage that a worker owns: open ones take their rows in one call.

    What they know of their sources lies in rows of common arrays. `duplicates` counts the rows dropped.
    """

    def __init__(self, partitions: int, sources: int) -> None:
        self.duplicates = 0
        self._sources = sources
        self._gates: dict[int, Gate] = {}
        self._seen = np.full((partitions, SOURCE_TOPICS * sources), -1, np.int64)
        self._folded = self._seen.copy()
        self._watermarks = np.full_like(self._seen, NEVER)

    def add(self, partition: int, gate: Gate) -> None:
        """Take in the gate of a partition."""
        gate.lie_in(self._seen[partition], self._folded[partition], self._watermarks[partition])
        self._gates[partition] = gate

    def remove(self, partition: int) -> None:
        """Leave the gate of a partition to itself, if it has one here."""
        if gate := self._gates.pop(partition, None):
            gate.lie_in(*(rows[partition].copy() for rows in (self._seen, self._folded, self._watermarks)))
            self._watermarks[partition] = NEVER

    def receive(self, rows: HopRows, homes: NDArray[np.int64]) -> tuple[HopRows, NDArray[np.int64]]:
        """Take rows in, each by the gate of its partition in `homes` (ascending), and return those that may be folded
        now, with their partitions.

        Raises LookupError of a row whose source there is not.
        """
        if (self._watermarks == NEVER).all() and not (rows.kinds == WATERMARK).any():
            return self._pass(rows, homes)
        partitions = np.unique(homes).tolist()
        bounds = np.searchsorted(homes, [*partitions, partitions[-1] + 1] if partitions else []).tolist()
        parts, passed = [rows.between(0, 0)], []
        for partition, (start, end) in zip(partitions, pairwise(bounds), strict=True):
            gate = self._gates[partition]
            before = gate.duplicates
            parts.append(gate.receive(rows.between(start, end)))
            passed.append(np.full(len(parts[-1]), partition))
            self.duplicates += gate.duplicates - before
        return HopRows.concatenate(parts), np.concatenate([homes[:0], *passed])

    def _pass(self, rows: HopRows, homes: NDArray[np.int64]) -> tuple[HopRows, NDArray[np.int64]]:
        """Drop what was seen; all gates are open and stay so."""
        if (rows.source_partitions >= self._sources).any():
            raise LookupError(f"a row of source partition {rows.source_partitions.max()}, of {self._sources}")
        fresh = _pass(
            homes,
            rows.source_topics,
            rows.source_partitions,
            rows.source_offsets,
            self._sources,
            self._seen,
            self._folded,
        )
        labels = np.flatnonzero(rows.source_topics == FROM_LABELS)
        for partition in np.unique(homes[labels]).tolist():
            mine = labels[homes[labels] == partition]
            fresh[mine] = self._gates[partition].take_labels(rows.source_partitions[mine], rows.source_offsets[mine])
        if fresh.all():
            return rows, homes
        self.duplicates += int(len(rows) - fresh.sum())
        picked = np.flatnonzero(fresh)
        return rows.take(picked), homes[picked]


@kernel(OUT_FLAGS(I64, I64, I64, I64, INT, OUT_I64_2D, OUT_I64_2D))
def _pass(
    homes: NDArray[np.int64],
    topics: NDArray[np.int64],
    partitions: NDArray[np.int64],
    offsets: NDArray[np.int64],
    sources: int,
    seen: NDArray[np.int64],
    folded: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Return which rows are new, labels always, and note them as seen and folded."""
    fresh = np.empty(homes.size, np.bool_)
    for i in range(homes.size):
        home, source = homes[i], topics[i] * sources + partitions[i]
        fresh[i] = offsets[i] > seen[home, source] or topics[i] == FROM_LABELS
        if fresh[i]:
            seen[home, source] = max(seen[home, source], offsets[i])
            folded[home, source] = max(folded[home, source], offsets[i])
    return fresh


@kernel(OUT_FLAGS(I64, I64, OUT_I64))
def _accept(sources: NDArray[np.int64], offsets: NDArray[np.int64], seen: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which rows are new, and raise `seen` to them."""
    fresh = np.empty(sources.size, np.bool_)
    for i in range(sources.size):
        fresh[i] = offsets[i] > seen[sources[i]]
        if fresh[i]:
            seen[sources[i]] = offsets[i]
    return fresh


@kernel(VOID(I64, I64, OUT_I64))
def _raise_marks(sources: NDArray[np.int64], offsets: NDArray[np.int64], marks: NDArray[np.int64]) -> None:
    for i in range(sources.size):
        marks[sources[i]] = max(marks[sources[i]], offsets[i])


@kernel(OUT_I64(I64, I64, OUT_I64))
def _running_latest(
    sources: NDArray[np.int64], times: NDArray[np.int64], latest: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return per row the latest time of its source so far: a late row goes when its source's order allows."""
    out = np.empty(sources.size, np.int64)
    for i in range(sources.size):
        latest[sources[i]] = max(latest[sources[i]], times[i])
        out[i] = latest[sources[i]]
    return out
