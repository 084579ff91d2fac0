"""A feature stage: read a batch, fold it, pass the events on — to the next entity, or scored."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack

import numpy as np
from numpy.typing import NDArray

from schemas.codec import Poison
from schemas.topics import Topics
from streams.agents.deadletters import DeadLetters
from streams.agents.intake import EventReader
from streams.agents.scoring import ScoreWriter, ServingModel
from streams.decisions.lists import EntityLists
from streams.features.table import EntityTable
from streams.metrics import Metrics
from streams.runtime import faults
from streams.runtime.batches import Batch
from streams.runtime.checkpoint import OwnedPartition
from streams.runtime.hop import EVENT, WATERMARK, HopFormat, HopRows, features_of
from streams.runtime.records import Records, Spans, by_partition, partition_of
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

    async def claim(self, partition: int) -> int:
        """Take a partition over and return the offset to read from."""
        table = EntityTable(self.stage, self._features)
        owned = OwnedPartition(self._usecase.states(self.stage, partition), table, self._store, self._metrics)
        offset = await owned.claim(self._topics.events.partitions if self._index else None)
        self.owned[partition] = owned
        return offset

    def release(self, partition: int) -> None:
        """Forget a partition that another worker takes over; a checkpoint round under way leaves it out."""
        if owned := self.owned.pop(partition, None):
            owned.abandon()

    async def on_batches(self, batches: Sequence[Batch]) -> None:
        """Fold what a fetch brought of several partitions and send its outputs.

        All partitions are read, passed on and scored together, as a call costs more than an event. The offsets
        count once a checkpoint has kept them.
        """
        started = time.perf_counter()
        async with AsyncExitStack() as stack:
            for batch in batches:
                await stack.enter_async_context(self.owned[batch.partition].folding())
            rows, homes = await self._read(batches)
            passed = {}
            for batch in batches:
                start, end = np.searchsorted(homes, [batch.partition, batch.partition + 1]).tolist()
                passed[batch.partition] = self._gated(self.owned[batch.partition], rows.between(start, end))
            faults.point("gated")
            await self._fold(passed)
            faults.point("sent")
            for batch in batches:
                self.owned[batch.partition].folded(batch.next_offset, passed=len(passed[batch.partition]) > 0)
        await self._sender.room()
        self._metrics.events.labels(self.stage.entity).inc(sum(len(batch.records) for batch in batches))
        self._metrics.batches.labels(self.stage.entity).inc()
        self._metrics.batch_seconds.labels(self.stage.entity).observe(time.perf_counter() - started)

    async def give_up_late_watermarks(self, patience: float) -> None:
        """Fold what a gate has held for `patience` seconds without a new watermark passing anything."""
        for partition, owned in list(self.owned.items()):
            async with owned.folding():
                mine = self.owned.get(partition) is owned  # it may have been given up while we waited
                if not mine or not owned.gate or not owned.gate.held or owned.held_for() < patience:
                    continue
                rows = owned.gate.give_up()
                log.warning("%s: no watermark for %.0f s, %d rows go on without", owned.name, patience, len(rows))
                await self._fold({partition: rows})
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
        """Return the sound rows of all batches and the partition of each, ascending; bury the others."""
        batches = sorted(batches, key=lambda batch: batch.partition)
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

    def _gated(self, owned: OwnedPartition, rows: HopRows) -> HopRows:
        """Return what the partition's gate lets pass."""
        if not owned.gate:
            return rows
        before = owned.gate.duplicates
        rows = owned.gate.receive(rows)
        if owned.gate.duplicates > before:
            self._metrics.duplicates.labels(self.stage.entity).inc(owned.gate.duplicates - before)
        return rows

    async def _fold(self, passed: Mapping[int, HopRows]) -> None:
        """Fold the rows of each partition into its entities, and send what comes of all of them."""
        parts = {partition: rows for partition, rows in passed.items() if len(rows)}
        if not parts:
            return
        keys = {partition: self._keys(rows) for partition, rows in parts.items()}
        missing = {partition: self.owned[partition].missing(mine) for partition, mine in keys.items()}
        loads = [self.owned[partition].load(absent) for partition, absent in missing.items() if absent]
        if loads:
            await asyncio.gather(*loads)
        staged = []
        for partition, rows in parts.items():
            parts[partition], features = self._fold_into(self.owned[partition], rows, keys[partition])
            staged.append(features)
        faults.point("folded")
        rows = HopRows.concatenate(list(parts.values()))
        if not len(rows):
            return
        features = np.concatenate(staged)
        if self._next:
            self._pass_on(rows, features)
        else:
            self._score(rows, features, np.repeat(list(parts), [len(part) for part in parts.values()]))

    def _keys(self, rows: HopRows) -> list[bytes]:
        """Return the entity of each row that is no watermark."""
        texts = rows.texts[1 + self._index]
        if (rows.kinds == WATERMARK).any():
            texts = [text for text, kind in zip(texts, rows.kinds.tolist(), strict=True) if kind != WATERMARK]
        return [text.encode() for text in texts]

    def _fold_into(
        self, owned: OwnedPartition, rows: HopRows, keys: Sequence[bytes]
    ) -> tuple[HopRows, NDArray[np.float64]]:
        """Return the rows without events sent twice, and the stage's features of each, zeros for what is no event.

        `keys` are those of `_keys`.
        """
        promises = rows.kinds == WATERMARK
        records = rows.take(np.flatnonzero(~promises)) if promises.any() else rows
        late = owned.table.late
        ids = [text.encode() for text in records.texts[0]] if owned.table.remembers else []
        values = records.numbers[:, : len(self._features.values) + 1]
        features, fresh = owned.table.fold_once(ids, keys, records.kinds, records.times, values)
        if owned.table.late > late:
            self._metrics.late.labels(self.stage.entity).inc(owned.table.late - late)
        if not fresh.all():
            self._metrics.duplicates.labels(self.stage.entity).inc(int((~fresh).sum()))
        if records is not rows:
            folded, features = features, np.zeros((len(rows), features.shape[1]))
            features[~promises] = folded
            fresh, new = np.ones(len(rows), np.bool_), fresh
            fresh[~promises] = new
        if fresh.all():
            return rows, features
        return rows.take(np.flatnonzero(fresh)), features[fresh]

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
