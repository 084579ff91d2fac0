"""A store that is away for a while holds its partitions up, and loses none."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from streams.features.table import EntityTable
from streams.metrics import Metrics
from streams.runtime.checkpoint import OwnedPartition
from streams.stores import patient
from streams.stores.memory import MemoryStateStore
from streams.stores.patient import PatientStore
from streams.stores.state import Checkpoint, Claim, StoreUnavailable
from streams.usecases import FRAUD

STAGE = FRAUD.features.stages[0]
NAME = "fraud.customer.0.0"


class AwayStore(MemoryStateStore):
    """Does not answer the next `failures` claims and loads."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 0

    async def claim(self, partition: str) -> Claim:
        self._answer()
        return await super().claim(partition)

    async def load(self, partition: str, epoch: int, entities: Sequence[bytes]) -> list[bytes | None]:
        self._answer()
        return await super().load(partition, epoch, entities)

    def _answer(self) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("away")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(patient, "LONGEST_PAUSE", 0.004)


def state_of(key: bytes) -> bytes:
    table = EntityTable(STAGE, FRAUD.features)
    table.fold([key], np.zeros(1, np.int8), np.full(1, 5), np.ones((1, 2)))
    return table.states()[key]


def test_a_partition_is_claimed_and_touched_once_the_store_is_back() -> None:
    """Claim and touch wait, each failed attempt is told, and what was kept is found."""

    async def scenario() -> tuple[int, dict[bytes, bytes], int]:
        store, told = AwayStore(), list[StoreUnavailable]()
        first = await store.claim(NAME)
        await store.save(NAME, first.epoch, Checkpoint(7, b""), [(b"c", state_of(b"c"))])
        owned = OwnedPartition(
            NAME,
            EntityTable(STAGE, FRAUD.features),
            PatientStore(store, told.append, lambda: False),
            Metrics("worker"),
        )
        store.failures = 5
        offset = await owned.claim(None)
        store.failures = 7
        await owned.load(owned.missing([b"c"]))
        return offset, owned.table.states(), len(told)

    assert asyncio.run(asyncio.wait_for(scenario(), 10)) == (7, {b"c": state_of(b"c")}, 12)


def test_a_worker_that_is_to_end_does_not_wait() -> None:
    """The store is away and the worker is told to stop: the wait ends, with the reason."""

    async def scenario() -> None:
        store, told = AwayStore(), list[StoreUnavailable]()
        store.failures = 1 << 30
        waiting = PatientStore(store, told.append, lambda: len(told) == 3)
        with pytest.raises(StoreUnavailable, match="away"):
            await waiting.claim(NAME)

    asyncio.run(asyncio.wait_for(scenario(), 10))
