"""Owned partitions whose store is watched, for the tests of checkpoints."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np

from streams.features.table import EntityTable
from streams.metrics import Metrics
from streams.runtime.checkpoint import OwnedPartition, folding
from streams.stores.memory import MemoryStateStore
from streams.stores.state import Checkpoint, States
from streams.usecases import FRAUD
from tests.unit.streams.world import Broker, MemorySender

CUSTOMER = FRAUD.features.stages[0]
NAME = "fraud.customer.0.0"


class WatchedStore(MemoryStateStore):
    """Remembers what it was asked, waits for `ready` before a save, and is away for `failures` saves."""

    def __init__(self) -> None:
        super().__init__()
        self.saved: list[tuple[int, dict[bytes, bytes]]] = []
        self.loaded: list[bytes] = []
        self.failures = 0
        self.ready = asyncio.Event()
        self.ready.set()

    async def load(self, partition: str, epoch: int, entities: Sequence[bytes]) -> list[bytes | None]:
        self.loaded += entities
        return await super().load(partition, epoch, entities)

    async def save(self, partition: str, epoch: int, checkpoint: Checkpoint, states: States) -> None:
        await self.ready.wait()
        if self.failures:
            self.failures -= 1
            raise ConnectionError("away")
        await super().save(partition, epoch, checkpoint, states)
        self.saved.append((checkpoint.offset, dict(states)))


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 20))


async def owner(store: MemoryStateStore, sources: int | None = None) -> OwnedPartition:
    owned = OwnedPartition(NAME, EntityTable(CUSTOMER, FRAUD.features), store, Metrics("worker"))
    await owned.claim(sources)
    return owned


async def fold(owned: OwnedPartition, next_offset: int, *keys: bytes, failing: bool = False) -> None:
    """Fold one event of each key, as a batch that ends before `next_offset`, or fail just before its end."""
    n = len(keys)
    async with folding(owned):
        await owned.load(owned.missing(keys))
        owned.table.fold(keys, np.zeros(n, np.int8), np.full(n, next_offset), np.ones((n, 2)))
        if failing:
            raise LookupError("a topic is missing")
        owned.folded(next_offset, passed=True)


def sending(automatic: bool = True) -> Any:
    return MemorySender(Broker(), automatic)


async def idle() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)
