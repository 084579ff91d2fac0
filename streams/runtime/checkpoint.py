"""The checkpoint protocol (decision D2): state, input offset and marks are kept together or not at all.

The order of effects, and what a crash after each step leaves behind:

1. a batch is folded into the owner's memory and its outputs are handed to the sender: nothing is kept, the
   next owner folds it again and sends again; receivers drop the rows they have seen;
2. at a checkpoint the changed states, the offset to resume at and the marks are copied as they are at one moment,
   the states piece by piece, each before it changes again: the same;
3. Kafka acknowledges every output handed over so far: the same;
4. one write under the owner's epoch keeps states, offset and marks: the next owner resumes after the batch.
   A worker that has lost the partition is fenced here, and nothing of it is kept;
5. the offset is committed to Kafka: no worker goes on from it, but lag tools, the join's patience and a switchover do.
"""

import asyncio
import logging
import time
from collections.abc import Sequence

from streams.features.table import EntityTable, StateRefused
from streams.metrics import Metrics
from streams.runtime import faults
from streams.runtime.gate import Gate, Marks
from streams.runtime.sender import Sender
from streams.stores.state import Checkpoint, StateStore

log = logging.getLogger(__name__)

PIECE = 256
"""Entities copied at once: no more, as events wait meanwhile."""


class folding:  # noqa: N801 - reads like the context managers of contextlib
    """Keep checkpoints out while batches of some partitions, in ascending order, are folded.

    And for ever if that fails: state and offset differ then.
    """

    def __init__(self, *partitions: "OwnedPartition") -> None:
        self._partitions = partitions
        self.locked: list[OwnedPartition] = []

    async def __aenter__(self) -> None:
        try:
            for one in self._partitions:
                await one.lock.acquire()
                self.locked.append(one)
        except BaseException:
            self._release()
            raise
        for one in self._partitions:
            one.folds_open += 1

    async def __aexit__(self, failed: object, *_: object) -> None:
        if not failed:
            for one in self._partitions:
                one.folds_open -= 1
        self._release()

    def _release(self) -> None:
        for one in self.locked:
            one.lock.release()


class OwnedPartition:
    """A partition of one stage in this worker's hands: its entities, its gate, and where it stands.

    `gate` is None for a stage that a single source feeds.
    """

    def __init__(self, name: str, table: EntityTable, store: StateStore, metrics: Metrics) -> None:
        self.name = name
        self.table = table
        self.gate: Gate | None = None
        self.next_offset = -1
        self.kept_offset = -1
        self.lock = asyncio.Lock()
        self.folds_open = 0  # one that failed stays open
        self._saving = asyncio.Lock()
        self._abandoned = False
        self._changed_at: float | None = None
        self._held_since: float | None = None
        self._store = store
        self._refused = metrics.states_refused.labels(table.stage.entity)
        self._epoch = 0
        self._fresh = False

    async def claim(self, sources: int | None) -> int:
        """Become the owner; return the offset to read from, -1 for the beginning.

        `sources` is the number of partitions that feed the stage by hops, None for none.
        """
        claim = await self._store.claim(self.name)
        faults.point("claimed")
        self._epoch, checkpoint = claim.epoch, claim.checkpoint
        self._fresh = checkpoint is None
        if claim.refused:
            self._refused.inc()
            log.warning(
                "%s: the checkpoint is damaged, it is kept as %s; the partition is rebuilt", self.name, claim.refused
            )
        # Kafka may not have been told of it, and the join waits for what Kafka was told.
        self.kept_offset = self.next_offset = -1 if checkpoint is None else checkpoint.offset
        if sources is not None:
            marks = b"" if checkpoint is None else checkpoint.marks
            try:
                self.gate = Gate(sources, Marks.from_bytes(marks, 2 * sources))
            except StateRefused as error:
                raise StateRefused(f"{self.name}: {error}") from None
        return self.next_offset

    def missing(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return those of `keys` that are to be loaded before they are folded."""
        # Where there was no checkpoint, every entity there is has come into memory since, and is there if none left.
        if self._fresh and not self.table.evicted:
            return []
        return self.table.missing(keys)

    async def load(self, missing: Sequence[bytes]) -> None:
        """Bring entities that are not in memory yet from the store.

        Raises StateRefused of one that is damaged or of other features: set aside, and the partition with it.
        """
        for key, state in zip(missing, await self._store.load(self.name, self._epoch, missing), strict=True):
            if state is not None:
                try:
                    self.table.load(key, state)
                except StateRefused as error:
                    raise await self._set_aside(key, error) from None

    async def _set_aside(self, key: bytes, why: StateRefused) -> StateRefused:
        """Have the next owner begin anew: what else this state has come to cannot be known."""
        place = await self._store.set_aside(self.name, self._epoch, key)
        self._refused.inc()
        # An entity may be a card: logs do not name it.
        return StateRefused(
            f"{self.name}: the state of one entity: {why}; it is kept as {place}, its next owner rebuilds"
        )

    def folded(self, next_offset: int, passed: bool) -> None:
        """Note that everything before `next_offset` is folded or held by the gate, and whether any row passed it."""
        now = time.monotonic()
        self.next_offset = next_offset
        if self._changed_at is None:
            self._changed_at = now
        if not self.gate or not self.gate.held:
            self._held_since = None
        elif passed or self._held_since is None:
            self._held_since = now

    def abandon(self) -> None:
        """Never write the partition again, and forget its entities: another worker takes it over.

        A write under way goes on.
        """
        self._abandoned = True
        self.table.clear()

    def age(self) -> float:
        """Return how old the oldest change is that is not kept yet, in seconds."""
        return 0.0 if self._changed_at is None else time.monotonic() - self._changed_at

    def held_for(self) -> float:
        """Return for how long the gate has let nothing pass, in seconds."""
        return 0.0 if self._held_since is None else time.monotonic() - self._held_since

    async def checkpoint(self, sender: Sender) -> int | None:
        """Carry out steps 2 to 4; return how many entities were written, None where nothing had changed
        or the partition is abandoned.

        One at a time: an older copy must not be written over a newer one, and who gives the partition up must
        not do so while a write is under way.
        """
        async with self._saving:
            return await self._checkpoint(sender)

    async def _checkpoint(self, sender: Sender) -> int | None:
        async with self.lock:
            if self._nothing_to_keep():
                return None
            changed_at, self._changed_at = self._changed_at, None
            copy = self.table.copy()
            offset = self.gate.resume_at(self.next_offset) if self.gate else self.next_offset
            marks = self.gate.marks().to_bytes() if self.gate else b""
            checkpoint = Checkpoint(offset, marks, self.next_offset)
            outputs = sender.mark()
        states: list[tuple[bytes, bytes]] = []
        try:
            while piece := copy.take(PIECE):
                states += piece
                await asyncio.sleep(0)
            if self._abandoned:
                return None
            faults.point("copied")
            await sender.acked(outputs)
            faults.point("acknowledged")
            await self._store.save(self.name, self._epoch, checkpoint, states)
        except BaseException:
            if not self._abandoned:
                self.table.mark_dirty(key for key, _ in states)
            self._changed_at = changed_at
            raise
        faults.point("kept")
        self.kept_offset = offset
        return len(states)

    def _nothing_to_keep(self) -> bool:
        return bool(self.folds_open) or self._abandoned or self._changed_at is None

    def done(self, reached: int) -> int:
        """Return the offset before which everything is kept, -1 for none; `reached` is how far the input is done.

        That may be past what has been folded: the end of a transaction is no record.
        """
        if (self.gate and self.gate.held) or not 0 <= self.kept_offset == self.next_offset:
            return self.kept_offset
        return max(self.kept_offset, reached)

    async def evict(self, limit: int) -> int:
        """Drop clean entities from memory until `limit` are left; return how many went.

        Neither between an entity's loading and its folding, nor while a checkpoint that took it is on its way.
        """
        async with self._saving, self.lock:
            return self.table.evict(limit)


async def checkpoint_all(partitions: Sequence[OwnedPartition], sender: Sender, metrics: Metrics) -> None:
    """Checkpoint each partition in turn, so that no pause is longer than one partition's copy."""
    for partition in partitions:
        stage = partition.table.stage.entity
        started = time.perf_counter()
        written = await partition.checkpoint(sender)
        if written is not None:
            metrics.checkpoint_seconds.labels(stage).observe(time.perf_counter() - started)
            metrics.checkpoint_entities.labels(stage).inc(written)


async def evict_all(partitions: Sequence[OwnedPartition], limit: int, metrics: Metrics) -> None:
    """Where all partitions together have more than `limit` entities in memory, take of each in proportion.

    A sixteenth more than needed, as looking for the least recently used costs the same for few.
    """
    total = sum(len(partition.table) for partition in partitions)
    if total <= limit:
        return
    for partition in partitions:
        went = await partition.evict(len(partition.table) * (limit - limit // 16) // total)
        metrics.evicted.labels(partition.table.stage.entity).inc(went)
