"""A state store that is waited for: what may be done again is, for as long as the store is away."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from streams.stores.state import Checkpoint, Claim, States, StateStore, StoreUnavailable

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0  # seconds between two attempts


class PatientStore:
    """`store` with calls that are tried until they work; but a save is its caller's to repeat.

    A partition stays in its worker's hands meanwhile. `on_retry` is told of each attempt that failed; once `over`
    says that the worker is to end, the next failure is raised.
    """

    def __init__(
        self, store: StateStore, on_retry: Callable[[StoreUnavailable], None], over: Callable[[], bool]
    ) -> None:
        self._store, self._on_retry, self._over = store, on_retry, over

    async def claim(self, partition: str) -> Claim:
        return await self._tried(lambda: self._store.claim(partition))

    async def load(self, partition: str, epoch: int, entities: Sequence[bytes]) -> list[bytes | None]:
        return await self._tried(lambda: self._store.load(partition, epoch, entities))

    async def save(self, partition: str, epoch: int, checkpoint: Checkpoint, states: States) -> None:
        await self._store.save(partition, epoch, checkpoint, states)

    async def set_aside(self, partition: str, epoch: int, entity: bytes) -> str:
        return await self._tried(lambda: self._store.set_aside(partition, epoch, entity))

    async def read(self, partition: str, entities: Sequence[bytes]) -> list[bytes | None]:
        return await self._tried(lambda: self._store.read(partition, entities))

    async def close(self) -> None:
        await self._store.close()

    async def _tried(self, call: Callable[[], Awaitable[T]]) -> T:
        pause = FIRST_PAUSE
        while True:
            try:
                return await call()
            except StoreUnavailable as error:
                if self._over():
                    raise
                self._on_retry(error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
