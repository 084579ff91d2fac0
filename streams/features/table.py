"""The entities of one partition in memory: fold records, read features, give and take state bytes."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from streams.features import arena, kernel, statebytes
from streams.features.ids import hashes
from streams.features.spec import Aggregate, FeatureSet, Over, Stage


class StateRefused(ValueError):
    """Stored state that must not be loaded: damaged, or written by another feature set."""


class EntityTable:
    """The state of one stage's entities, keyed by the entity's id as bytes.

    `late` counts records too late for their windows; `evicted` says whether an entity ever left the memory, so
    that one which is not in it may be in the store; `remembers`, whether the entities know their events' ids.

    >>> from streams.features.spec import *
    >>> hour = Window("1h", HOUR)
    >>> stage = Stage("card", "card_id", (View(Over.EVENTS, "amount", windowed("n", Aggregate.COUNT, hour)),))
    >>> table = EntityTable(stage, FeatureSet(("amount",), (stage,), ()))
    >>> zeros = np.zeros(3, np.int8)
    >>> table.fold([b"a", b"b", b"a"], zeros, np.array([0, 5, 9]), np.ones((3, 2))).tolist()
    [[1.0], [1.0], [2.0]]
    """

    def __init__(self, stage: Stage, features: FeatureSet) -> None:
        self.stage = stage
        self.late = 0
        self.evicted = False
        self.remembers = stage == features.stages[0]
        self._fingerprint = np.uint64(int.from_bytes(stage.fingerprint(features.lateness), "little"))
        self._views = _flatten(stage, features)
        self._slots: dict[bytes, int] = {}
        self._keys: list[bytes] = []
        self._rings = np.zeros((64, 2 * len(stage.views) + self.remembers), arena.ring_type)
        self._dirty = np.zeros(64, np.uint8)
        self._touched = np.zeros(64, np.int64)  # the number of the call that touched the entity last
        self._calls = 0
        self._free: list[int] = []
        self._times = np.zeros(1024, np.int64)
        self._values = np.zeros(1024, np.float64)
        self._used = 0

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, key: bytes) -> bool:
        return key in self._slots

    def missing(self, keys: Iterable[bytes]) -> list[bytes]:
        """Return those of `keys` that are not in memory, each once."""
        return [key for key in dict.fromkeys(keys) if key not in self._slots]

    def fold(
        self,
        keys: Sequence[bytes],
        kinds: NDArray[np.int8],
        times: NDArray[np.int64],
        values: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Fold records in order; return the stage's features of each event, float64[n, features].

        kinds int8[n] (`Over`: event or label), times int64[n] in ms, values float64[n, len(values) + 1] whose
        last column is the label. An unknown key starts empty. The rows of labels are zeros.
        """
        return self._fold(keys, kinds, times, values, np.empty(0))[0]

    def fold_once(
        self,
        ids: Sequence[bytes],
        keys: Sequence[bytes],
        kinds: NDArray[np.int8],
        times: NDArray[np.int64],
        values: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Fold as `fold` does, but no event whose id its entity remembers; return the features, and which are new.

        An entity of the first stage remembers its newest events' ids (`kernel.HORIZON`, `kernel.MOST_IDS`), one of
        another stage none. The rows of repeated events are zeros.
        """
        return self._fold(keys, kinds, times, values, hashes(ids) if self.remembers else np.empty(0))

    def _fold(
        self,
        keys: Sequence[bytes],
        kinds: NDArray[np.int8],
        times: NDArray[np.int64],
        values: NDArray[np.float64],
        ids: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        fresh = np.ones(len(keys), np.bool_)
        out = np.zeros((len(keys), len(self.stage.names)), np.float64)
        slots = self._slots_of(keys)
        kinds, times, values = map(np.ascontiguousarray, (kinds, times, values))
        counters = np.zeros(1, np.int64)
        row = 0
        while True:
            row, self._used = kernel.fold(
                row, self._used, counters, slots, kinds, times, values, ids,
                self._rings, self._times, self._values, self._dirty, self._views, fresh, out,
            )  # fmt: skip
            if row == len(keys):
                break
            self._make_room(kernel.GROWTH)
        self.late += int(counters[0])
        return out, fresh

    def take_dirty(self) -> list[tuple[bytes, bytes]]:
        """Return (key, state bytes) of every entity changed since the last call, which counts as kept now."""
        slots = np.flatnonzero(self._dirty[: len(self._keys)])
        self._dirty[slots] = 0
        return self._pack(slots)

    def mark_dirty(self, keys: Iterable[bytes]) -> None:
        """Count `keys` as changed again: their last state did not reach the store."""
        for key in keys:
            self._dirty[self._slots[key]] = 1

    def evict(self, limit: int) -> int:
        """Drop entities until `limit` are left, least recently used first; return how many.

        What the store does not have yet stays. Not to be called while a checkpoint is being written: what it has
        taken counts as clean, and the store does not have it yet.
        """
        excess = len(self) - limit
        if excess <= 0:
            return 0
        slots = np.fromiter(self._slots.values(), np.int64, len(self))
        slots = slots[self._dirty[slots] == 0]
        if slots.size > excess:
            slots = slots[np.argpartition(self._touched[slots], excess)[:excess]]
        for slot in slots.tolist():
            del self._slots[self._keys[slot]]
            self._keys[slot] = b""
        self._free += slots.tolist()
        self._rings[slots], self._dirty[slots] = 0, 0
        self.evicted |= slots.size > 0
        if self._times.size > max(2 * kernel.GROWTH, 4 * arena.compacted_size(self._rings)):
            self._make_room(0)
        return int(slots.size)

    def states(self) -> dict[bytes, bytes]:
        """Return the state bytes of every entity in memory."""
        return dict(self._pack(np.fromiter(self._slots.values(), np.int64, len(self))))

    def load(self, key: bytes, state: bytes) -> None:
        """Take an entity's state from the store; raise StateRefused, and change nothing, where it is unfit."""
        array = np.frombuffer(state, np.uint8)
        verdict, records = statebytes.verify(array, self._fingerprint, len(self.stage.views) + self.remembers)
        if verdict == statebytes.OTHER_FEATURES:
            raise StateRefused("written by another feature set")
        if verdict == statebytes.CORRUPT:
            raise StateRefused("damaged (its checksum does not fit)")
        if self._used + 2 * records > self._times.size:
            self._make_room(2 * records)
        slot = int(self._slots_of([key])[0])
        self._used = statebytes.unpack(
            array, slot, self._used, len(self.stage.views), self._rings, self._times, self._values
        )
        self._dirty[slot] = 0

    def _pack(self, slots: NDArray[np.int64]) -> list[tuple[bytes, bytes]]:
        if slots.size == 0:
            return []
        views = len(self.stage.views)
        ends = statebytes.sizes(slots, views, self._rings, self._values)
        buffer = np.zeros(ends[-1], np.uint8)
        statebytes.pack(slots, ends, self._fingerprint, views, self._rings, self._times, self._values, buffer)
        data, bounds = buffer.tobytes(), [0, *ends.tolist()]
        return [(self._keys[slot], data[bounds[i] : bounds[i + 1]]) for i, slot in enumerate(slots.tolist())]

    def _slots_of(self, keys: Sequence[bytes]) -> NDArray[np.int64]:
        slots = list(map(self._slots.get, keys))
        if None in slots:
            for i, slot in enumerate(slots):
                if slot is None:
                    slots[i] = self._slots.get(keys[i])
                    if slots[i] is None:
                        slots[i] = self._add(keys[i])
        found = np.array(slots, np.int64)
        self._calls += 1
        self._touched[found] = self._calls
        return found

    def _add(self, key: bytes) -> int:
        if self._free:
            slot = self._free.pop()
            self._keys[slot] = key
        else:
            slot = len(self._keys)
            self._keys.append(key)
        if slot == len(self._rings):
            self._rings = np.concatenate([self._rings, np.zeros_like(self._rings)])
            self._dirty = np.concatenate([self._dirty, np.zeros_like(self._dirty)])
            self._touched = np.concatenate([self._touched, np.zeros_like(self._touched)])
        self._slots[key] = slot
        return slot

    def _make_room(self, records: int) -> None:
        """Move every ring into an arena with room for at least `records` more, and half of it free."""
        size, used = 1024, arena.compacted_size(self._rings)
        while size < 2 * used + records:
            size *= 2
        times, values = np.zeros(size, np.int64), np.zeros(size, np.float64)
        self._used = arena.compact(self._rings, self._times, self._values, times, values)
        self._times, self._values = times, values


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
