"""Entities as they were at one moment, copied piece by piece while they go on being folded."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from streams.features.memory import EntityMemory

CLEAN, CHANGED, COPYING = 0, 1, 2
"""Marks of a slot; the last: it is still to be copied as it is now."""


class Copy:
    """The entities of one table that had changed when the copy began, as they were then.

    Copying thousands at once would hold up every event for milliseconds. Whoever folds has those copied before that
    the fold will change (`before`).
    """

    def __init__(self, memory: "EntityMemory", home: int) -> None:
        self._memory = memory
        self._home = home
        self._slots = self._of_ours(np.flatnonzero(memory.marks))
        self._at = 0
        self._early: list[tuple[bytes, bytes]] = []
        memory.marks[self._slots] = COPYING

    def take(self, most: int) -> list[tuple[bytes, bytes]]:
        """Return (key, state bytes) of some more entities, which count as clean unless they have changed since.

        Those that were copied early, and at most so many others; none when the copy is complete.
        """
        states, self._early = self._early, []
        while self._at < self._slots.size:
            piece = self._copied(self._slots[self._at : self._at + most], CLEAN)
            self._at += most
            if piece:
                return states + piece
        if not states:
            self._memory.forget_copy(self._home)
        return states

    def before(self, slots: NDArray[np.int64]) -> None:
        """Copy those of `slots` that are still to be copied; they are about to change.

        They count as changed at once: if the copy is broken off, nobody has what was copied early.
        """
        self._early += self._copied(slots, CHANGED)

    def _copied(self, slots: NDArray[np.int64], mark: int) -> list[tuple[bytes, bytes]]:
        due = np.unique(self._of_ours(slots[self._memory.marks[slots] == COPYING]))
        self._memory.marks[due] = mark
        return self._memory.pack(due)

    def _of_ours(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        ours: NDArray[np.int64] = slots[self._memory.homes[slots] == self._home]
        return ours
