"""A state store whose partitions have snapshots elsewhere: written in the background, read where it is empty.

The order of effects in a round of archiving, and what a crash after each step leaves behind:

1. what changed since the last round is the round's, and what is saved from now on the next one's: nothing is lost,
   a round that was broken off is part of the next, whoever makes it;
2. the states of the round's entities are read as of a save, and written as rows of its position: rows that no
   header speaks of yet;
3. what was saved meanwhile is read at one moment, between two saves, and written too: the same;
4. the header of that moment's save is written: the snapshot. A rebuild goes on from here;
5. older rows of the round's entities are deleted, and the round is forgotten: a crash before makes it again.

No save waits for the archive: reading keeps it out for as long as one page takes, and step 3 for what came in
during step 2. What is read is fenced as what is folded: only the owner's states are archived.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from streams.features import statebytes
from streams.features.table import StateRefused
from streams.stores.entity_snapshots import EntitySnapshots
from streams.stores.state import Checkpoint, Claim, SnapshotsUnavailable, States, StoreUnavailable, TrackingStore

log = logging.getLogger(__name__)

PAGE, PRUNED = 200, 1000  # states written and entities pruned at a time: a few ms of the loop
PAUSE = 0.02  # seconds after each

Begin = Callable[[str], Awaitable[int]]
"""Returns the first offset that Kafka still has of a partition's input."""


@dataclass
class Ours:
    """A partition claimed here: the last save that is known to be kept, and the position of the last header."""

    epoch: int
    last: Checkpoint | None
    archived: int = -1
    saving: asyncio.Lock = field(default_factory=asyncio.Lock)


class SnapshotStore:
    """`store` whose empty partitions are restored from `snapshots`; `archive` brings these up to date.

    Where the snapshots cannot be asked, a partition of which Kafka has all is rebuilt from there; for another they
    are waited for (SnapshotsUnavailable, to be tried again). `on_progress` is told that a restore goes on.
    """

    def __init__(
        self, store: TrackingStore, snapshots: EntitySnapshots, begin: Begin, on_progress: Callable[[], None]
    ) -> None:
        self._store, self._snapshots, self._begin, self._on_progress = store, snapshots, begin, on_progress
        self._ours: dict[str, Ours] = {}

    async def claim(self, partition: str) -> Claim:
        claim = await self._store.claim(partition)
        if claim.checkpoint:
            self._ours[partition] = Ours(claim.epoch, None)
            return claim
        claim = await self._restored(partition, claim)
        self._ours[partition] = Ours(claim.epoch, None, claim.checkpoint.position if claim.checkpoint else -1)
        return claim

    async def load(self, partition: str, epoch: int, entities: Sequence[bytes]) -> list[bytes | None]:
        return await self._store.load(partition, epoch, entities)

    async def save(self, partition: str, epoch: int, checkpoint: Checkpoint, states: States) -> None:
        ours = self._ours.get(partition) or Ours(epoch, None)
        async with ours.saving:
            ours.last = None  # until it is known to be kept
            await self._store.save(partition, epoch, checkpoint, states)
            ours.last = checkpoint

    async def set_aside(self, partition: str, epoch: int, entity: bytes) -> str:
        return await self._store.set_aside(partition, epoch, entity)

    async def read(self, partition: str, entities: Sequence[bytes]) -> list[bytes | None]:
        return await self._store.read(partition, entities)

    async def close(self) -> None:
        await self._store.close()
        await self._snapshots.close()

    async def archive(self, partition: str) -> int | None:
        """Bring the partition's snapshot up to its last save; return how many states were written, None where
        nothing was saved since the last.

        Raises Fenced, StoreUnavailable, and StateRefused of a damaged state, which is set aside with its partition.
        """
        ours = self._ours.get(partition)
        if ours is None or ours.last is None or ours.last.position <= ours.archived:
            return None
        with suppress(StateRefused):  # a damaged header is replaced below
            await self._snapshots.header(partition)  # no round is begun that has nowhere to write
        begun, written = _kept(partition, ours).position, 0
        await self._store.begin_round(partition, ours.epoch)
        async for entities in self._changed(partition, ours.epoch, recent=False, most=PAGE):
            async with ours.saving:
                position, states = _kept(partition, ours).position, await self._states(partition, ours, entities)
            await self._snapshots.write(partition, position, states)
            written += len(states)
            await asyncio.sleep(PAUSE)
        async with ours.saving:
            header = _kept(partition, ours)
            rest = [
                await self._states(partition, ours, entities)
                async for entities in self._changed(partition, ours.epoch, recent=True, most=PAGE)
            ]
        for states in rest:
            await self._snapshots.write(partition, header.position, states)
            written += len(states)
        await self._snapshots.conclude(partition, header)
        ours.archived = header.position
        async for entities in self._changed(partition, ours.epoch, recent=False, most=PRUNED):
            await self._snapshots.prune(partition, begun, entities)
            await asyncio.sleep(PAUSE)
        await self._store.end_round(partition, ours.epoch)
        return written

    async def _header(self, partition: str) -> Checkpoint | None:
        try:
            return await self._snapshots.header(partition)
        except StateRefused as error:
            log.warning("%s: the header of its entity snapshot is %s, and not used", partition, error)
        except SnapshotsUnavailable as error:
            if await self._begin(partition) > 0:
                raise
            log.info("%s: Kafka has all of it, so no snapshot is needed: %s", partition, error)
        return None

    async def _restored(self, partition: str, claim: Claim) -> Claim:
        """Return a claim with the newest snapshot, which has been copied into the store, if there is one that fits.

        A copy that ends early is left to its generation, of which nothing will be read.
        """
        while header := await self._header(partition):
            try:
                count = await self._copy(partition, claim.epoch, header.position)
            except StateRefused as error:
                log.warning("%s: the entity snapshot of offset %d is not used: %s", partition, header.offset, error)
                claim = await self._again(partition, claim)
                break
            if await self._snapshots.header(partition) == header:
                await self._store.save(partition, claim.epoch, header, [])
                log.info("%s: restored %d states from the snapshot of offset %d", partition, count, header.offset)
                return replace(claim, checkpoint=header)
            claim = await self._again(partition, claim)  # rows that it needs may have been deleted for a newer one
        if (begin := await self._begin(partition)) > 0:
            log.warning(
                "%s: no checkpoint and no snapshot, and of its input Kafka has only what comes from offset %d on: "
                "features lack what was before, until their windows have passed it",
                partition,
                begin,
            )
        return claim

    async def _again(self, partition: str, claim: Claim) -> Claim:
        return replace(await self._store.claim(partition), refused=claim.refused)

    async def _copy(self, partition: str, epoch: int, position: int) -> int:
        count = 0
        async for states in self._snapshots.rows(partition, position):
            if unfit := [(entity, state) for entity, state in states if not _sound(state)]:
                # As rows of another name they are kept for whoever looks into it, and no later restore meets them.
                await self._snapshots.write(f"{partition}:refused", position, unfit)
                await self._snapshots.prune(partition, position + 1, [entity for entity, _ in unfit])
                raise StateRefused(f"a state is damaged (its checksum does not fit); it is kept as {partition}:refused")
            await self._store.put(partition, epoch, states)
            count += len(states)
            self._on_progress()
        return count

    async def _changed(self, partition: str, epoch: int, recent: bool, most: int) -> AsyncIterator[list[bytes]]:
        """Yield the entities of a round, in pages."""
        cursor = -1
        while cursor:
            cursor, entities = await self._store.changed(partition, epoch, recent, max(cursor, 0))
            for start in range(0, len(entities), most):
                yield entities[start : start + most]

    async def _states(self, partition: str, ours: Ours, entities: Sequence[bytes]) -> States:
        """Return the states of those that have not expired."""
        loaded = zip(entities, await self._store.load(partition, ours.epoch, entities), strict=True)
        states = [(entity, state) for entity, state in loaded if state is not None]
        for entity, state in states:
            if not _sound(state):
                place = await self._store.set_aside(partition, ours.epoch, entity)
                raise StateRefused(
                    f"{partition}: the state of one entity: damaged (its checksum does not fit); "
                    f"it is kept as {place}, its next owner rebuilds"
                )
        return states


def _kept(partition: str, ours: Ours) -> Checkpoint:
    if ours.last is None:
        raise StoreUnavailable(f"{partition}: its last save may have been kept or not")
    return ours.last


def _sound(state: bytes) -> bool:
    """Say whether the state's checksum fits, whatever feature set it is of."""
    return statebytes.verify(np.frombuffer(state, np.uint8), np.uint64(0), 0, 0) != statebytes.CORRUPT
