"""A feature stage: read a batch, fold it, pass the events on — to the next entity, or scored."""

import logging
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from schemas.codec import Poison
from schemas.topics import Topics
from streams.agents.intake import Dead, EventReader
from streams.agents.scoring import ScoreWriter, ServingModel
from streams.features.table import EntityTable
from streams.metrics import Metrics
from streams.runtime.batches import Batch
from streams.runtime.checkpoint import OwnedPartition
from streams.runtime.dlq import dead_letter
from streams.runtime.hop import EVENT, WATERMARK, HopFormat, HopRows
from streams.runtime.records import Spans, by_partition, partition_of
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
        self._max_ahead, self._clock = max_ahead_ms, clock
        self._fingerprint = self.stage.fingerprint(self._features.lateness).hex()
        self._prefix = f"{usecase.name}.{self.stage.entity}.{self._fingerprint}"
        self._reader = EventReader(usecase)
        self._format = HopFormat(self._features, index) if index else None
        last = index + 1 == len(self._features.stages)
        self._next = None if last else (topics.hops[index], HopFormat(self._features, index + 1))
        self._writer = ScoreWriter(usecase)
        self.model: ServingModel | None = None

    async def claim(self, partition: int) -> int:
        """Take a partition over and return the offset to read from."""
        table = EntityTable(self.stage, self._features)
        owned = OwnedPartition(f"{self._prefix}.{partition}", table, self._store)
        offset = await owned.claim(self._topics.events.partitions if self._index else None)
        self.owned[partition] = owned
        return offset

    def release(self, partition: int) -> None:
        """Forget a partition that another worker takes over."""
        self.owned.pop(partition, None)

    async def on_batch(self, batch: Batch) -> None:
        """Fold a fetched batch and send its outputs; the offset counts once a checkpoint has kept it."""
        started = time.perf_counter()
        owned = self.owned[batch.partition]
        async with owned.folding():
            rows, dead = self._read(batch)
            await self._bury(batch, dead)
            if owned.gate:
                before = owned.gate.duplicates
                rows = owned.gate.receive(rows)
                if owned.gate.duplicates > before:
                    self._metrics.duplicates.labels(self.stage.entity).inc(owned.gate.duplicates - before)
            await self._fold(owned, rows, batch.partition)
            owned.folded(batch.next_offset, passed=len(rows) > 0)
        await self._sender.room()
        self._metrics.events.labels(self.stage.entity).inc(len(batch.records))
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
                await self._fold(owned, rows, partition)
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

    def _read(self, batch: Batch) -> tuple[HopRows, Dead]:
        if self._format is None:
            latest = int(self._clock() * 1000) + self._max_ahead
            return self._reader.read(batch.records, batch.partition, latest)
        rows, bad = self._format.decode(batch.records)
        return rows, [(row, Poison("undecodable", "not a hop message of this feature set")) for row in bad.tolist()]

    async def _bury(self, batch: Batch, dead: Dead) -> None:
        for row, poison in dead:
            letter = dead_letter(batch.records, row, batch.topic, batch.partition, poison)
            await self._sender.send(self._topics.dlq.name, letter.key, letter.value, letter.headers)
            self._metrics.dlq.labels(letter.reason).inc()

    async def _fold(self, owned: OwnedPartition, rows: HopRows, partition: int) -> None:
        if not len(rows):
            return
        promises = rows.kinds == WATERMARK
        records = rows.take(np.flatnonzero(~promises)) if promises.any() else rows
        keys = [text.encode() for text in records.texts[1 + self._index]]
        await owned.touch(keys)
        values = np.ascontiguousarray(records.numbers[:, : len(self._features.values) + 1])
        late = owned.table.late
        staged = owned.table.fold(keys, records.kinds, records.times, values)
        if owned.table.late > late:
            self._metrics.late.labels(self.stage.entity).inc(owned.table.late - late)
        if self._next:
            self._pass_on(rows, promises, staged)
        else:
            self._score(records, staged, partition)

    def _pass_on(self, rows: HopRows, promises: NDArray[np.bool_], staged: NDArray[np.float64]) -> None:
        """Send the events to the partitions of their next entity, and watermarks to all of them."""
        assert self._next
        topic, format_ = self._next
        features = np.zeros((len(rows), staged.shape[1]))
        features[~promises] = staged
        values = format_.encode(rows.widened(features))
        keys = Spans.of([text.encode() for text in rows.texts[2 + self._index]])
        targets = partition_of(keys, topic.partitions)
        if promises.any():
            for partition in range(topic.partitions):
                picked = np.flatnonzero((targets == partition) | promises)
                self._send(topic.name, partition, keys, values, rows.received, picked)
        else:
            for partition, picked in by_partition(targets, topic.partitions):
                self._send(topic.name, partition, keys, values, rows.received, picked)

    def _score(self, rows: HopRows, staged: NDArray[np.float64], partition: int) -> None:
        """Score the events; scores keep their partition, so those of one last entity stay in order."""
        assert self.model
        events = np.flatnonzero(rows.kinds == EVENT)
        if not events.size:
            return
        if events.size < len(rows):
            rows, staged = rows.take(events), staged[events]
        now = self._clock() * 1000
        keys, values = self._writer.write(rows, staged, self.model, int(now))
        times = np.full(len(rows), int(now), np.int64)
        self._send(self._topics.scores.name, partition, Spans.of(keys), Spans.of(values), times, None)
        self._metrics.event_to_score_seconds.observe(np.maximum(0.0, (now - rows.received) / 1000))

    def _send(
        self,
        topic: str,
        partition: int,
        keys: Spans,
        values: Spans,
        timestamps: NDArray[np.int64],
        picked: NDArray[np.int64] | None,
    ) -> None:
        self._sender.send_records(topic, partition, keys, values, timestamps, picked)
