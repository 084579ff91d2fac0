"""The entities of one partition: fold records, read features, give and take state bytes."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from streams.features.copying import Copy
from streams.features.ids import hashes
from streams.features.memory import EntityMemory, StateRefused
from streams.features.spec import FeatureSet, Stage

__all__ = ["EntityTable", "StateRefused"]


class EntityTable:
    """The state of one stage's entities, keyed by the entity's id as bytes.

    `memory` is shared with the tables of the stage's other partitions, or the table's own. `evicted` says whether an
    entity ever left the memory, so that one which is not in it may be in the store.

    >>> from streams.features.spec import *
    >>> hour = Window("1h", HOUR)
    >>> stage = Stage("card", "card_id", (View(Over.EVENTS, "amount", windowed("n", Aggregate.COUNT, hour)),))
    >>> table = EntityTable(stage, FeatureSet(("amount",), (stage,), ()))
    >>> zeros = np.zeros(3, np.int8)
    >>> table.fold([b"a", b"b", b"a"], zeros, np.array([0, 5, 9]), np.ones((3, 2))).tolist()
    [[1.0], [1.0], [2.0]]
    """

    def __init__(self, stage: Stage, features: FeatureSet, memory: EntityMemory | None = None) -> None:
        self.stage = stage
        self.memory = memory or EntityMemory(stage, features)
        self.evicted = False
        self._home = self.memory.new_home()
        self._slots: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, key: bytes) -> bool:
        return key in self._slots

    @property
    def late(self) -> int:
        """How many records were too late for their windows, in all tables of the memory."""
        return self.memory.late

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
        slots = np.array(self.slots(keys), np.int64)
        return self.memory.fold(slots, kinds, times, values, np.empty(0))[0]

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
        known = hashes(ids) if self.memory.remembers else np.empty(0)
        return self.memory.fold(np.array(self.slots(keys), np.int64), kinds, times, values, known)

    def slots(self, keys: Sequence[bytes]) -> list[int]:
        """Return where in the memory each entity lies; an unknown one starts empty."""
        slots = list(map(self._slots.get, keys))
        if None not in slots:
            return slots  # type: ignore[return-value]
        return [self._slot(key) if slot is None else slot for key, slot in zip(keys, slots, strict=True)]

    def copy(self) -> Copy:
        """Begin to copy every entity changed since the last copy, which is complete; they count as kept then."""
        return self.memory.copy(self._home)

    def mark_dirty(self, keys: Iterable[bytes]) -> None:
        """Count `keys` as changed again: their last state did not reach the store. A copy under way is given up."""
        self.memory.forget_copy(self._home)
        self.memory.mark_dirty(self._slots[key] for key in keys)

    def evict(self, limit: int) -> int:
        """Drop entities until `limit` are left, least recently used first; return how many.

        What the store does not have yet stays. Not to be called while a checkpoint is being written: what it has
        taken counts as clean, and the store does not have it yet.
        """
        if len(self) <= limit:
            return 0
        slots = self.memory.least_used(self._all(), len(self) - limit)
        for key in self.memory.keys(slots):
            del self._slots[key]
        self.memory.drop(slots)
        self.evicted |= slots.size > 0
        return int(slots.size)

    def clear(self) -> None:
        """Leave the memory: the partition goes to another worker."""
        self.memory.forget_copy(self._home)
        self.memory.drop(self._all())
        self._slots.clear()

    def states(self) -> dict[bytes, bytes]:
        """Return the state bytes of every entity in memory."""
        return dict(self.memory.pack(self._all()))

    def load(self, key: bytes, state: bytes) -> None:
        """Take an entity's state from the store; raise StateRefused, and change nothing, where it is unfit."""
        self.memory.check(state)
        self.memory.load(self._slot(key), state)

    def _slot(self, key: bytes) -> int:
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = self.memory.add(key, self._home)
        return slot

    def _all(self) -> NDArray[np.int64]:
        return np.fromiter(self._slots.values(), np.int64, len(self))
