"""Learn: read examples in order, teach the model, announce it signed and with the offsets it has learnt.

The order of effects, under one lock:

1. what cannot be decoded goes to the DLQ, and once Kafka has it, the batch is learnt in offset order;
2. now and then, and before the partition is given up, one record on the model topic holds every recipe's model, the
   next offset of every partition they have learnt from, *and* the labels they have seen;
3. once Kafka has that record, the offsets are committed too, for lag tools only.

A crash between any two of these goes back to the last announcement, and the same examples in the same order
lead to the same weights. An example that comes twice, as its sender had a crash, is learnt once.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

import msgspec
from faust.types import TP

from schemas.codec import Decoder, Poison, encode
from schemas.events import Example, ModelAnnouncement
from schemas.topics import Topics
from streams.agents.deadletters import DeadLetters
from streams.metrics import Metrics
from streams.models.learner import Learner
from streams.models.lessons import Lessons, Outcome
from streams.models.snapshot import ForeignSnapshot, SnapshotRefused
from streams.runtime.batches import EARLIEST, Batch
from streams.runtime.newest import Logged
from streams.runtime.sender import Sender
from streams.usecases import UseCase

STAGE = "learner"

Clock = Callable[[], float]
"""Seconds since the epoch."""

Announced = Callable[[], AsyncGenerator[Logged, None]]
"""The records of the model topic, the newest first."""

MOST_TRIED = 100  # announcements that are looked at for one to go on from

log = logging.getLogger(__name__)

_decode = Decoder(Example, "label_time")
_decode_announcement = msgspec.json.Decoder(ModelAnnouncement).decode


class LearnerAgent:
    """The learner of a use case: `lessons` are the model so far and how far it has come."""

    def __init__(
        self,
        usecase: UseCase,
        topics: Topics,
        announced: Announced,
        sender: Sender,
        key: bytes,
        metrics: Metrics,
        max_ahead_ms: int,
        clock: Clock = time.time,
    ) -> None:
        self._usecase, self._topics, self._models = usecase, topics, announced
        self._sender, self._key, self._metrics = sender, key, metrics
        self._max_ahead, self._clock = max_ahead_ms, clock
        self._dead_letters = DeadLetters(sender, topics.dlq.name, metrics)
        self._lock = asyncio.Lock()
        self._created_at = 0
        self.lessons = self._none()
        self._announced: dict[int, int] = {}

    async def take_up(self) -> None:
        """Take up the newest announced model that is sound, and of this feature set.

        What is damaged is named with its offset and passed over: an older model and the examples since then lead
        to the same weights. Without a model of ours learning starts with the earliest example; but where some were
        damaged SnapshotRefused is raised instead, as it is more likely the key that is wrong.
        """
        async with self._lock:
            self.lessons, self._announced = self._none(), {}
            tried = damaged = 0
            async with aclosing(self._models()) as records:
                async for record in records:
                    try:
                        if self._resume(record):
                            return
                    except SnapshotRefused as error:
                        damaged += 1
                        self._metrics.models_refused.inc()
                        log.error("%s/0 at offset %d: refused: %s", self._topics.models.name, record.offset, error)
                    tried += 1
                    if tried == MOST_TRIED:
                        break
            if damaged:
                raise SnapshotRefused(
                    f"{self._topics.models.name}: none of its newest {tried} records is a model to go on from, and "
                    f"{damaged} were refused: is HEADRACE_MODEL_KEY the one they were signed with?"
                )
            log.info("no model yet: learning starts with the earliest example")

    async def positions(self, partitions: set[TP]) -> Mapping[TP, int]:
        """Take up the newest announced model, which another process may have made, and return where it goes on."""
        if partitions:
            await self.take_up()
        return {tp: self.lessons.offsets.get(tp.partition, EARLIEST) for tp in partitions}

    async def on_batch(self, batch: Batch) -> None:
        """Learn a fetched batch."""
        started = time.perf_counter()
        async with self._lock:
            examples = await self._read(batch)
            # Nothing is awaited from here on: model, offset and labels seen move together.
            for example in examples:
                self._learn(example)
            self.lessons.offsets[batch.partition] = batch.next_offset
        self._metrics.events.labels(STAGE).inc(len(batch.records))
        self._metrics.batches.labels(STAGE).inc()
        self._metrics.batch_seconds.labels(STAGE).observe(time.perf_counter() - started)

    async def announce(self) -> bool:
        """Announce the model if it has read anything since it last was; return whether it was."""
        async with self._lock:
            if self.lessons.offsets == self._announced:
                return False
            announcement = self.lessons.announce(int(self._clock() * 1000), self._key)
            await self._sender.send(self._topics.models.name, self._usecase.name.encode(), encode(announcement))
            await self._sender.acked(self._sender.mark())
            self._announced = announcement.example_offsets
            self.lessons.announced(announcement)
            self._show_model(announcement.created_at)
            return True

    def show(self) -> None:
        """Show how well the scores did at the time, and how old the model is."""
        progressive = self._champion.progressive
        for measure, value in (
            ("auc", progressive.auc()),
            ("average_precision", progressive.average_precision()),
            ("log_loss", progressive.log_loss()),
        ):
            self._metrics.progressive.labels(measure).set(value)
        if self._created_at:
            self._metrics.model_age_seconds.set(self._clock() - self._created_at / 1000)

    def _none(self) -> Lessons:
        features = self._usecase.features
        return Lessons(self._usecase.recipes, features.names, features.fingerprint)

    @property
    def _champion(self) -> Learner:
        return self.lessons.learners[self._usecase.recipes[0]]

    def _resume(self, record: Logged) -> bool:
        """Go on from a record of the model topic; return whether it is a model of ours to go on from.

        Raises SnapshotRefused of one that is damaged.
        """
        features = self._usecase.features
        try:
            announcement = _decode_announcement(record.value)
            lessons = Lessons.resume(
                announcement, self._usecase.recipes, features.names, features.fingerprint, self._key
            )
        except ForeignSnapshot as error:
            log.warning("%s/0 at offset %d: not gone on with: %s", self._topics.models.name, record.offset, error)
            return False
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise SnapshotRefused(f"no announcement: {error}") from None
        self.lessons, self._announced = lessons, announcement.example_offsets
        self._show_model(announcement.created_at)
        log.info("models %s go on learning", ", ".join(one.model_id for one in lessons.learners.values()))
        return True

    async def _read(self, batch: Batch) -> list[Example]:
        latest = int(self._clock() * 1000) + self._max_ahead
        examples, dead = [], []
        for row, value in enumerate(batch.records.values()):
            try:
                example = _decode(value, latest)
                if (example.label_partition or 0) >= self._topics.labels.partitions:
                    raise Poison("invalid", f"label_partition {example.label_partition}: there is no such")
                examples.append(example)
            except Poison as poison:
                dead.append((row, poison))
        await self._dead_letters.send(batch, dead)
        return examples

    def _learn(self, example: Example) -> None:
        outcome = self.lessons.take(example)
        if outcome is Outcome.LEARNT:
            self._metrics.examples.inc()
        elif outcome is Outcome.DUPLICATE:
            self._metrics.duplicates.labels(STAGE).inc()
        else:
            self._metrics.examples_refused.labels(outcome).inc()

    def _show_model(self, created_at: int) -> None:
        self._created_at = created_at
        self._metrics.model(self._champion.model_id, created_at)
