"""A feature stage: read a batch, fold it, pass the events on — to the next entity, or scored."""

import asyncio
import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.codec import Poison
from schemas.topics import Topics
from streams.agents.deadletters import DeadLetters
from streams.agents.intake import EventReader
from streams.agents.scoring import ScoreWriter, ServingModel
from streams.decisions.lists import EntityLists
from streams.features.ids import hashes
from streams.features.memory import EntityMemory
from streams.features.table import EntityTable
from streams.metrics import Metrics
from streams.runtime import faults
from streams.runtime.batches import Batch
from streams.runtime.checkpoint import OwnedPartition, folding
from streams.runtime.gate import Gates
from streams.runtime.hop import EVENT, WATERMARK, HopFormat, HopRows, features_of
from streams.runtime.partitioner import by_partition, partition_of
from streams.runtime.records import Records, Spans
from streams.runtime.sender import Sender
from streams.stores.state import StateStore
from streams.usecases import UseCase

log = logging.getLogger(__name__)

Clock = Callable[[], float]
"""Seconds since the epoch."""


class StageAgent:
    """Stage number `index` of a use case over the partitions that this worker owns."""

    def __init__(
        self,
        usecase: UseCase,
        index: int,
        topics: Topics,
        sender: Sender,
        store: StateStore,
        metrics: Metrics,
        max_ahead_ms: int,
        clock: Clock = time.time,
    ) -> None:
        self.stage = usecase.features.stages[index]
        self.topic = topics.hops[index - 1] if index else topics.events
        self.owned: dict[int, OwnedPartition] = {}
        self._features, self._index, self._topics = usecase.features, index, topics
        self._sender, self._store, self._metrics = sender, store, metrics
        self._dead_letters = DeadLetters(sender, topics.dlq.name, metrics)
        self._max_ahead, self._clock = max_ahead_ms, clock
        self._usecase = usecase
        self._reader = EventReader(usecase)
        self._format = HopFormat(self._features, index) if index else None
        last = index + 1 == len(self._features.stages)
        self._next = None if last else (topics.hops[index], HopFormat(self._features, index + 1))
        self._writer = ScoreWriter(usecase, metrics)
        self.model: ServingModel | None = None
        self.lists = EntityLists(usecase.verdicts, usecase.entities)
        self._memory = EntityMemory(self.stage, self._features)
        self._gates = Gates(self.topic.partitions, topics.events.partitions)
        self._events = metrics.events.labels(self.stage.entity)
        self._batches = metrics.batches.labels(self.stage.entity)
        self._batch_seconds = metrics.batch_seconds.labels(self.stage.entity)

    async def claim(self, partition: int) -> int:
        """Take a partition over and return the offset to read from."""
        table = EntityTable(self.stage, self._features, self._memory)
        owned = OwnedPartition(self._usecase.states(self.stage, partition), table, self._store, self._metrics)
        offset = await owned.claim(self._topics.events.partitions if self._index else None)
        if owned.gate:
            self._gates.add(partition, owned.gate)
        self.owned[partition] = owned
        return offset

    def release(self, partition: int) -> None:
        """Forget a partition that another worker takes over; a checkpoint round under way leaves it out."""
        self._gates.remove(partition)
        if owned := self.owned.pop(partition, None):
            owned.abandon()

    async def on_batches(self, batches: Sequence[Batch]) -> None:
        """Fold what a fetch brought of several partitions and send its outputs.

        All partitions are read, folded, passed on and scored together, as a call costs more than an event. The offsets
        count once a checkpoint has kept them.
        """
        started = time.perf_counter()
        batches = sorted(batches, key=lambda batch: batch.partition)
        partitions = [self.owned[batch.partition] for batch in batches]
        async with folding(*partitions):
            rows, homes = self._gated(*await self._read(batches))
            faults.point("gated")
            passed = await self._fold(rows, homes)
            faults.point("sent")
            for owned, batch in zip(partitions, batches, strict=True):
                owned.folded(batch.next_offset, passed=batch.partition in passed)
        await self._sender.room()
        self._events.inc(sum(len(batch.records) for batch in batches))
        self._batches.inc()
        self._batch_seconds.observe(time.perf_counter() - started)

    async def give_up_late_watermarks(self, patience: float) -> None:
        """Fold what a gate has held for `patience` seconds without a new watermark passing anything."""
        for partition, owned in list(self.owned.items()):
            async with folding(owned):
                mine = self.owned.get(partition) is owned  # it may have been given up while we waited
                if not mine or not owned.gate or not owned.gate.held or owned.held_for() < patience:
                    continue
                rows = owned.gate.give_up()
                log.warning("%s: no watermark for %.0f s, %d rows go on without", owned.name, patience, len(rows))
                await self._fold(rows, np.full(len(rows), partition))
                owned.folded(owned.next_offset, passed=True)

    def show(self, metrics: Metrics) -> None:
        """Show what the partitions hold."""
        owned = self.owned.values()
        metrics.entities.labels(self.stage.entity).set(sum(len(one.table) for one in owned))
        metrics.checkpoint_age_seconds.labels(self.stage.entity).set(max((one.age() for one in owned), default=0.0))
        for partition, one in self.owned.items():
            if one.gate:
                metrics.held.labels(self.stage.entity, str(partition)).set(one.gate.held)
        if self.model:
            metrics.model_age_seconds.set(self._clock() - self.model.created_at / 1000)

    async def _read(self, batches: Sequence[Batch]) -> tuple[HopRows, NDArray[np.int64]]:
        """Return the sound rows of all batches, in order of partitions, and the partition of each; bury the others."""
        records = Records.concatenate([batch.records for batch in batches])
        homes = np.repeat([batch.partition for batch in batches], [len(batch.records) for batch in batches])
        if self._format is None:
            rows, dead = self._reader.read(records, homes, int(self._clock() * 1000) + self._max_ahead)
        else:
            rows, dead = self._read_hops(self._format, records)
        await self._dead_letters.put(self.topic.name, records, homes, dead)
        return rows, np.delete(homes, [row for row, _ in dead]) if dead else homes

    def _read_hops(self, format_: HopFormat, records: Records) -> tuple[HopRows, list[tuple[int, Poison]]]:
        """Return the rows that the gate can place, and why the others are none."""
        rows, bad = format_.decode(records)
        dead = [(row, self._no_hop(records.take(slice(row, row + 1)).values()[0])) for row in bad.tolist()]
        sources = self._topics.events.partitions
        known = rows.source_partitions < sources
        if not known.all():
            places = np.delete(np.arange(len(records)), bad)[~known].tolist()
            foreign = rows.source_partitions[~known].tolist()
            dead += [
                (row, Poison("undecodable", f"from partition {source} of a source with {sources}"))
                for row, source in zip(places, foreign, strict=True)
            ]
            rows = rows.take(np.flatnonzero(known))
        return rows, dead

    def _no_hop(self, value: bytes | None) -> Poison:
        """Say why a record is no hop message that this stage can read."""
        found, ours = features_of(value), self._features.fingerprint
        if found is None or found == ours:
            return Poison("undecodable", "not a hop message")
        return Poison("foreign_features", f"a hop message of feature set {found}, this deployment has {ours}")

    def _gated(self, rows: HopRows, homes: NDArray[np.int64]) -> tuple[HopRows, NDArray[np.int64]]:
        """Return what the gates let pass, and the partition of each."""
        if not self._index:
            return rows, homes
        before = self._gates.duplicates
        passed = self._gates.receive(rows, homes)
        if self._gates.duplicates > before:
            self._metrics.duplicates.labels(self.stage.entity).inc(self._gates.duplicates - before)
        return passed

    async def _fold(self, rows: HopRows, homes: NDArray[np.int64]) -> Collection[int]:
        """Fold rows into the entities of their partitions (`homes`, ascending), and send what comes of them.

        Returns the partitions.
        """
        if not len(rows):
            return ()
        promises = rows.kinds == WATERMARK
        records = np.flatnonzero(~promises) if promises.any() else None
        of = rows if records is None else rows.take(records)
        slots, partitions = await self._slots(of, homes if records is None else homes[records])
        features, fresh = self._fold_into(of, slots)
        if records is not None:
            folded, features = features, np.zeros((len(rows), features.shape[1]))
            features[records] = folded
            new, fresh = fresh, np.ones(len(rows), np.bool_)
            fresh[records] = new
            partitions = set(homes.tolist())
        faults.point("folded")
        if not fresh.all():
            self._metrics.duplicates.labels(self.stage.entity).inc(int((~fresh).sum()))
            rows, features, homes = rows.take(np.flatnonzero(fresh)), features[fresh], homes[fresh]
        if len(rows):
            if self._next:
                self._pass_on(rows, features)
            else:
                self._score(rows, features, homes)
        return partitions

    async def _slots(self, rows: HopRows, homes: NDArray[np.int64]) -> tuple[NDArray[np.int64], Collection[int]]:
        """Return where the entity of each row lies in the memory, loaded if need be, and the partitions."""
        keys = [text.encode() for text in rows.texts[1 + self._index]]
        if not keys:
            return np.empty(0, np.int64), ()
        # Few partitions, and rows in their order: where each begins is found faster than by NumPy.
        parts = {partition: bisect_left(homes, partition) for partition in dict.fromkeys(homes.tolist())}
        ends = [*list(parts.values())[1:], len(keys)]
        mine = [(self.owned[one], keys[start:end]) for (one, start), end in zip(parts.items(), ends, strict=True)]
        loads = [owned.load(missing) for owned, some in mine if (missing := owned.missing(some))]
        if loads:
            await asyncio.gather(*loads)
        return np.array([slot for owned, some in mine for slot in owned.table.slots(some)], np.int64), parts

    def _fold_into(self, rows: HopRows, slots: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the stage's features of each row, zeros for what is no event, and which rows were not sent twice."""
        memory = self._memory
        late = memory.late
        ids = hashes([text.encode() for text in rows.texts[0]]) if memory.remembers else np.empty(0)
        values = rows.numbers[:, : len(self._features.values) + 1]
        folded = memory.fold(slots, rows.kinds, rows.times, values, ids)
        if memory.late > late:
            self._metrics.late.labels(self.stage.entity).inc(memory.late - late)
        return folded

    def _pass_on(self, rows: HopRows, features: NDArray[np.float64]) -> None:
        """Send the events to the partitions of their next entity, and watermarks to all of them."""
        assert self._next
        topic, format_ = self._next
        values = format_.encode(rows.widened(features))
        keys = Spans.of([text.encode() for text in rows.texts[2 + self._index]])
        targets = partition_of(keys, topic.partitions)
        promises = rows.kinds == WATERMARK
        if promises.any():
            targeted = [(one, np.flatnonzero((targets == one) | promises)) for one in range(topic.partitions)]
        else:
            targeted = list(by_partition(targets, topic.partitions))
        for partition, picked in targeted:
            self._sender.send_records(topic.name, partition, keys, values, rows.received, picked)
            faults.point("handed-over")

    def _score(self, rows: HopRows, features: NDArray[np.float64], homes: NDArray[np.int64]) -> None:
        """Score the events; scores keep their partition, so those of one last entity stay in order."""
        assert self.model
        events = np.flatnonzero(rows.kinds == EVENT)
        if not events.size:
            return
        if events.size < len(rows):
            rows, features, homes = rows.take(events), features[events], homes[events]
        now = self._clock() * 1000
        keys, values = map(Spans.of, self._writer.write(rows, features, self.model, self.lists, int(now)))
        times = np.full(len(rows), int(now), np.int64)
        topics = [topic for topic in (self._topics.scores, self._topics.published) if topic]
        for partition, picked in by_partition(homes.astype(np.int32), self._topics.scores.partitions):
            for topic in topics:
                self._sender.send_records(topic.name, partition, keys, values, times, picked)
            faults.point("handed-over")
        self._metrics.event_to_score_seconds.observe(np.maximum(0.0, (now - rows.received) / 1000))
