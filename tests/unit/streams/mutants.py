"""The protocol without one of its steps: for each the simulation must find a difference."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams.agents import stage
from streams.features.copying import Copy
from streams.features.table import EntityTable, StateRefused
from streams.runtime import gate
from streams.runtime.checkpoint import OwnedPartition
from streams.runtime.gate import Gate, Marks
from streams.stores.memory import NOTHING, Kept, MemoryStateStore
from streams.stores.state import Checkpoint, Fenced, States, StoreUnavailable
from tests.unit.streams.features.folding import taken
from tests.unit.streams.shaky import PatchySender, ShakyStore
from tests.unit.streams.world import MemorySender


async def load_unfenced(self: ShakyStore, partition: str, epoch: int, entities: Sequence[bytes]) -> list[bytes | None]:
    return await self.read(partition, entities)


async def save_apart(self: ShakyStore, partition: str, epoch: int, checkpoint: Checkpoint, states: States) -> None:
    kept = self._owned(partition, epoch)
    earlier = Checkpoint.opened(kept.record, partition, kept.number) if kept.record else Checkpoint(0, b"")
    await MemoryStateStore.save(self, partition, epoch, earlier, states)
    for _ in range(12):
        await asyncio.sleep(0)
    if self.failing:
        raise StoreUnavailable(self.failing.popleft())
    await MemoryStateStore.save(self, partition, epoch, checkpoint, [])


def owned_by_number(self: ShakyStore, partition: str, epoch: int) -> Kept:
    return MemoryStateStore._owned(self, partition, self.kept.get(partition, NOTHING).epoch)


def owned_by_epoch(self: ShakyStore, partition: str, epoch: int) -> Kept:
    kept = self.kept.get(partition, NOTHING)
    if kept.epoch > epoch:
        raise Fenced("over")
    return kept


def lose_unnoticed(self: PatchySender) -> None:
    MemorySender.lose(self)
    self._failed = False


async def copied_late(self: OwnedPartition, sender: Any) -> int | None:
    if self.folds_open or self._abandoned or self._changed_at is None:
        return None
    self._changed_at = None
    states = taken(self.table)
    await sender.acked(sender.mark())
    marks = self.gate.marks().to_bytes() if self.gate else b""
    await self._store.save(self.name, self._epoch, Checkpoint(self.next_offset, marks), states)
    return len(states)


@asynccontextmanager
async def unlocked(*partitions: OwnedPartition) -> AsyncIterator[None]:
    yield


def load_or_forget(self: EntityTable, key: bytes, state: bytes, load: Any = EntityTable.load) -> None:
    with suppress(StateRefused):
        load(self, key, state)


def all_new(homes: NDArray[np.int64], *_: Any) -> NDArray[np.bool_]:
    return np.ones(homes.size, np.bool_)


MUTANTS: dict[str, tuple[Any, str, Any]] = {
    "a former owner may write": (ShakyStore, "_owned", owned_by_number),
    "a store that lost writes is written on": (ShakyStore, "_owned", owned_by_epoch),
    "a former owner may load": (ShakyStore, "load", load_unfenced),
    "states are kept before their offset": (ShakyStore, "save", save_apart),
    "a checkpoint does not wait for the outputs": (PatchySender, "mark", lambda self: frozenset()),
    "a refused output counts as delivered": (PatchySender, "lose", lose_unnoticed),
    "the offset is read after the states": (OwnedPartition, "_checkpoint", copied_late),
    "an entity may change before it is copied": (Copy, "before", lambda self, slots: None),
    "a checkpoint may fall into a batch": (stage, "folding", unlocked),
    "what a failed save had is forgotten": (EntityTable, "mark_dirty", lambda self, keys: None),
    "a damaged state counts as none": (EntityTable, "load", load_or_forget),
    "rows that are held count as folded": (Gate, "resume_at", lambda self, next_offset: next_offset),
    "the marks are not kept": (Marks, "to_bytes", lambda self: b""),
    "a row that was seen is folded again": (gate, "_pass", all_new),
}
"""Of each what it lacks: whose step, the step's name, and what is there instead."""
