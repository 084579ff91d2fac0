"""The memory that the partitions of a stage share: every entity has a slot, its rings lie in one arena.

One call folds records of any partitions: a call costs more than an event.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from streams.features import arena, kernel, statebytes
from streams.features.copying import CHANGED, CLEAN, COPYING, Copy
from streams.features.spec import Aggregate, FeatureSet, Over, Stage

I64s = NDArray[np.int64]

MOST_SLOTS = 1 << 14
"""How many slots are added at once at the most: they are zeroed while events wait."""


class StateRefused(ValueError):
    """Stored state that must not be loaded: damaged, or written by another feature set."""


class EntityMemory:
    """The state of one stage's entities by slot; `EntityTable` knows whose slot it is.

    `late` counts records too late for their windows; `remembers`, whether the entities know their events' ids. `marks`
    says of each slot whether it has changed (`streams.features.copying`), `homes` which table's it is; `copies` are
    those under way, by their tables.
    """

    def __init__(self, stage: Stage, features: FeatureSet) -> None:
        self.stage = stage
        self.late = 0
        self.remembers = stage == features.stages[0]
        self._fingerprint = np.uint64(int.from_bytes(stage.fingerprint(features.lateness), "little"))
        self._views = _flatten(stage, features)
        self._keys: list[bytes] = []
        self._rings = np.zeros((64, 2 * len(stage.views) + self.remembers), arena.ring_type)
        self.homes = np.zeros(64, np.int64)
        self.marks = np.zeros(64, np.uint8)
        self._touched = np.zeros(64, np.int64)  # the number of the call that touched the slot last
        self._calls = self._tables = 0
        self._free: list[int] = []
        self._arena = arena.Arena()
        self.copies: dict[int, Copy] = {}

    def new_home(self) -> int:
        """Return the number of one more table."""
        self._tables += 1
        return self._tables

    def add(self, key: bytes, home: int) -> int:
        """Return an empty slot for `key` of the table `home`."""
        if self._free:
            slot = self._free.pop()
            self._keys[slot] = key
        else:
            slot = len(self._keys)
            self._keys.append(key)
        if slot == len(self._rings):
            more = slot + min(slot, MOST_SLOTS)
            for part in self._rings, self.homes, self.marks, self._touched:
                part.resize((more, *part.shape[1:]), refcheck=False)
        self.homes[slot] = home
        return slot

    def drop(self, slots: I64s) -> None:
        """Empty slots for others to have."""
        for slot in slots.tolist():
            self._keys[slot] = b""
        self._free += slots.tolist()
        kernel.release(slots, self._rings, self._arena.times, self._arena.blocks)
        self.marks[slots], self.homes[slots] = CLEAN, 0
        self._arena = self._arena.compacted(self._rings)

    def fold(
        self,
        slots: I64s,
        kinds: NDArray[np.int8],
        times: I64s,
        values: NDArray[np.float64],
        ids: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Fold records in order; see `EntityTable.fold_once`. `ids` are the events' hashes, none to fold without."""
        fresh = np.ones(len(slots), np.bool_)
        out = np.zeros((len(slots), len(self.stage.names)), np.float64)
        for copy in self.copies.values():
            copy.before(slots)
        self._calls += 1
        self._touched[slots] = self._calls
        kinds, times, values = map(np.ascontiguousarray, (kinds, times, values))
        counters = np.zeros(1, np.int64)
        row = 0
        while True:
            row = kernel.fold(
                row, counters, slots, kinds, times, values, ids,
                self._rings, self._arena.times, self._arena.values, self._arena.blocks,
                self.marks, self._views, fresh, out,
            )  # fmt: skip
            if row == len(slots):
                break
            self._arena.grow()
        self.late += int(counters[0])
        return out, fresh

    def load(self, slot: int, state: bytes) -> None:
        """Take a state that `check` found sound into a slot."""
        if self.marks[slot] == COPYING and (copy := self.copies.get(int(self.homes[slot]))):
            copy.before(np.array([slot]))
        array, views = np.frombuffer(state, np.uint8), len(self.stage.views)
        kernel.release(np.array([slot]), self._rings, self._arena.times, self._arena.blocks)
        counts = statebytes.counts(array, views, self._rings.shape[1])
        while not kernel.place(slot, counts, self._rings, self._arena.times, self._arena.blocks):
            self._arena.grow()
        statebytes.unpack(array, slot, views, self._rings, self._arena.times, self._arena.values)
        self.marks[slot] = CLEAN
        self._touched[slot] = self._calls

    def check(self, state: bytes) -> None:
        """Raise StateRefused where a state is unfit."""
        array = np.frombuffer(state, np.uint8)
        views = len(self.stage.views)
        verdict = statebytes.verify(array, self._fingerprint, views, views + self.remembers)
        if verdict == statebytes.OTHER_FEATURES:
            raise StateRefused("written by another feature set")
        if verdict == statebytes.CORRUPT:
            raise StateRefused("damaged (it is nothing that was written)")

    def copy(self, home: int) -> Copy:
        """Begin to copy a table's entities that changed since its last copy, which is complete."""
        copy = self.copies[home] = Copy(self, home)
        return copy

    def forget_copy(self, home: int) -> None:
        """Copy nothing more of a table early: the copy is complete, or nobody wants it."""
        self.copies.pop(home, None)

    def mark_dirty(self, slots: Iterable[int]) -> None:
        """Count slots as changed again."""
        for slot in slots:
            self.marks[slot] = CHANGED

    def least_used(self, slots: I64s, most: int) -> I64s:
        """Return those of `slots` that are clean, at most so many, the least recently used."""
        slots = slots[self.marks[slots] == CLEAN]
        if slots.size <= most:
            return slots
        return slots[np.argpartition(self._touched[slots], most)[:most]]

    def keys(self, slots: I64s) -> list[bytes]:
        """Return whose slots these are."""
        return [self._keys[slot] for slot in slots.tolist()]

    def pack(self, slots: I64s) -> list[tuple[bytes, bytes]]:
        """Return (key, state bytes) of each slot."""
        if slots.size == 0:
            return []
        views = len(self.stage.views)
        ends = statebytes.sizes(slots, views, self._rings, self._arena.values)
        buffer = np.zeros(ends[-1], np.uint8)
        statebytes.pack(
            slots, ends, self._fingerprint, views, self._rings, self._arena.times, self._arena.values, buffer
        )
        data, bounds = buffer.tobytes(), [0, *ends.tolist()]
        return [(self._keys[slot], data[bounds[i] : bounds[i + 1]]) for i, slot in enumerate(slots.tolist())]


def _flatten(stage: Stage, features: FeatureSet) -> tuple[NDArray[np.int64], ...]:
    """Return the stage's declaration as the arrays that `kernel.fold` takes."""
    over, columns_of_value, keeps, windows, window_starts = [], [], [], [], [0]
    aggregates, feature_windows, feature_starts, columns = [], [], [0], []
    column = 0
    for view in stage.views:
        over.append(view.over)
        columns_of_value.append(len(features.values) if view.over is Over.LABELS else features.values.index(view.value))
        keeps.append(view.windows[-1].length + features.lateness)
        windows += [window.length for window in view.windows]
        window_starts.append(len(windows))
        order = sorted(
            (view.windows.index(feature.window), column + i, feature.aggregate)
            for i, feature in enumerate(view.features)
        )
        for window, at, aggregate in order:
            feature_windows.append(window)
            columns.append(at)
            aggregates.append(Aggregate(aggregate))
        column += len(view.features)
        feature_starts.append(column)
    if max(keeps) > statebytes.LONGEST_KEEP:
        raise ValueError(f"{stage.entity}: a window and its lateness may be 49 days at most")
    return tuple(
        np.array(part, np.int64)
        for part in (
            over, columns_of_value, keeps, windows, window_starts,
            aggregates, feature_windows, feature_starts, columns,
        )
    )  # fmt: skip
