"""Learn: read examples in order, teach the models, announce them signed and with the offsets they have learnt.

The order of effects, under one lock:

1. what cannot be decoded or must not be learnt goes to the DLQ, and once Kafka has it, the batch is learnt in offset
   order;
2. where the labels decided that another recipe is champion, a record on the alias topic says so;
3. once Kafka has that, now and then and before the partition is given up, one record on the model topic holds every
   recipe's model, the next offset of every partition they have learnt from, *and* all that they go on from: the labels
   seen, the guards, who is champion; in between, others hold the models alone, for scorers;
4. once Kafka has that record, the offsets are committed too, for lag tools only.

A crash between any two of these goes back to the last announcement that can be gone on from, and the same examples in
the same order lead to the same weights and to the same changes of the champion, which are then told again; nothing is
announced before it is as far as what was. An example that comes twice, as its sender had a crash, is learnt once.
"""

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from operator import itemgetter

import msgspec
from faust.types import TP

from schemas.codec import Decoder, Poison, encode
from schemas.events import AliasChange, Example, ModelAnnouncement
from schemas.topics import Topics
from streams.agents.deadletters import DeadLetters
from streams.metrics import Metrics
from streams.models.lessons import Lessons, Outcome, Rows
from streams.models.progressive import MEASURES
from streams.models.snapshot import ForeignSnapshot, SnapshotRefused, verify, verify_announcement
from streams.runtime.batches import EARLIEST, Batch
from streams.runtime.newest import Logged
from streams.runtime.sender import Sender
from streams.usecases import UseCase

STAGE = "learner"

Clock = Callable[[], float]
"""Seconds since the epoch."""

Announced = Callable[[], AsyncGenerator[Logged, None]]
"""The records of the model or the alias topic, the newest first."""

MOST_TRIED = 100  # announcements that are looked at for one to go on from
RESUMABLE_EVERY = 15
"""Of so many rounds of announcements one is for all that a learner goes on from; the others are for scorers only, and
small."""

log = logging.getLogger(__name__)

_decode = Decoder(Example, "label_time")
_decode_announcement = msgspec.json.Decoder(ModelAnnouncement).decode
_decode_change = msgspec.json.Decoder(AliasChange).decode

CHAMPION = "champion"


class LearnerAgent:
    """The learner of a use case: `lessons` are the model so far and how far it has come."""

    def __init__(
        self,
        usecase: UseCase,
        topics: Topics,
        announced: Announced,
        aliased: Announced,
        sender: Sender,
        key: bytes,
        metrics: Metrics,
        max_ahead_ms: int,
        clock: Clock = time.time,
    ) -> None:
        self._usecase, self._topics, self._models, self._aliases = usecase, topics, announced, aliased
        self._sender, self._key, self._metrics = sender, key, metrics
        self._max_ahead, self._clock = max_ahead_ms, clock
        self._dead_letters = DeadLetters(sender, topics.dlq.name, metrics)
        self._lock = asyncio.Lock()
        self.lessons = self._none()
        self._announced: dict[int, int] = {}
        self._resumable: dict[int, int] = {}
        self._told: ModelAnnouncement | None = None
        self._rounds_left = 0
        self._pin: AliasChange | None = None
        self._trips: dict[str, int] = {}

    async def take_up(self) -> None:
        """Take up the newest announced model that is sound, and of this feature set.

        What is damaged is named with its offset and passed over: an older model and the examples since then lead
        to the same weights. Without a model of ours learning starts with the earliest example; but where some were
        damaged SnapshotRefused is raised instead, as it is more likely the key that is wrong.
        """
        async with self._lock:
            self.lessons, self._announced, self._resumable, self._told = self._none(), {}, {}, None
            anew = await self._take_up_models()
            await self._take_up_champion(anew)
            self._trips = {recipe: learner.guard.trips for recipe, learner in self.lessons.learners.items()}

    async def follow(self, _: str, record: Logged) -> None:
        """Take note of a change of the champion, in the order of the alias topic."""
        async with self._lock:
            change = self._change(record)
            if change is None:
                return
            if change.by == "learner" and self._pin:
                # Decided before the pin was known: the person's word stands.
                await self._tell(self._pin)
                return
            self._pin = change if change.by == "operator" and change.model else None
            self.lessons.follow(change)

    async def _take_up_models(self) -> bool:
        """Return whether learning begins anew though others' models are there, those of another feature set."""
        tried = damaged = 0
        async with aclosing(self._models()) as records:
            async for record in records:
                try:
                    announcement = _decoded(record)
                    if not announcement.course:
                        self._note(announcement)
                        continue
                    if self._resume(announcement, record.offset):
                        return False
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
        return tried > 0

    async def _take_up_champion(self, anew: bool) -> None:
        self._pin = None
        async with aclosing(self._aliases()) as records:
            async for record in records:
                if change := self._change(record):
                    self._pin = change if change.by == "operator" and change.model else None
                    (self.lessons.begin_with if anew else self.lessons.follow)(change)
                    return

    async def positions(self, partitions: set[TP]) -> Mapping[TP, int]:
        """Take up the newest announced model, which another process may have made, and return where it goes on."""
        if partitions:
            await self.take_up()
        return {tp: self.lessons.offsets.get(tp.partition, EARLIEST) for tp in partitions}

    async def on_batch(self, batch: Batch) -> None:
        """Learn a fetched batch."""
        started = time.perf_counter()
        async with self._lock:
            rows = await self._read(batch)
            # Nothing is awaited from here on: models, offset and labels seen move together.
            self._learn(rows)
            self.lessons.offsets[batch.partition] = batch.next_offset
            await self._tell_changes()
        self._metrics.events.labels(STAGE).inc(len(batch.records))
        self._metrics.batches.labels(STAGE).inc()
        self._metrics.batch_seconds.labels(STAGE).observe(time.perf_counter() - started)

    async def announce_in_turn(self) -> bool:
        """Announce as one round of many, return whether it was: where a round that was to be one to go on from had
        nothing to say, the next that has something is."""
        resumable = self._rounds_left <= 0
        announced = await self.announce(resumable)
        self._rounds_left = RESUMABLE_EVERY - 1 if announced and resumable else self._rounds_left - 1
        return announced

    async def announce(self, resumable: bool = True) -> bool:
        """Announce the models if anything was read since they last were; return whether they were.

        With all that a learner goes on from, or for scorers only, which is a fraction of the size. The first always
        is one to go on from.
        """
        async with self._lock:
            resumable = resumable or not self._resumable
            if self.lessons.offsets == (self._resumable if resumable else self._announced):
                return False
            await self._tell_changes()
            if any(self.lessons.offsets.get(partition, 0) < next_ for partition, next_ in self._announced.items()):
                return False  # scorers have newer ones already
            announcement = self.lessons.announce(int(self._clock() * 1000), self._key, resumable)
            if not announcement.models:
                return False  # the guards are about to take them back
            # Keys of their own, so that compaction leaves the newest of both.
            key = self._usecase.name if resumable else f"{self._usecase.name}.scorers"
            await self._sender.send(self._topics.models.name, key.encode(), encode(announcement))
            await self._sender.acked(self._sender.mark())
            self._announced = announcement.example_offsets
            if resumable:
                self._resumable = announcement.example_offsets
            self.lessons.announced(announcement)
            return True

    def show(self) -> None:
        """Show how well the scores of each recipe did at the time, who is champion, and how old its model is."""
        for recipe, learner in self.lessons.learners.items():
            said = self.lessons.progressive.measures(recipe)
            for measure in MEASURES:
                self._metrics.progressive.labels(measure, recipe).set(said.get(measure, math.nan))
            self._metrics.champion.labels(recipe).set(recipe == self.lessons.seat.champion)
            self._metrics.learning_frozen.labels(recipe).set(learner.guard.frozen)
        if out := self.lessons.out:
            self._metrics.model(out.model_id, out.created_at)
            self._metrics.model_age_seconds.set(self._clock() - out.created_at / 1000)

    def _none(self) -> Lessons:
        features = self._usecase.features
        return Lessons(self._usecase.recipes, features.names, features.fingerprint, self._usecase.verdicts.alarms)

    def _note(self, announcement: ModelAnnouncement) -> None:
        """Take note of what scorers were told last; raises SnapshotRefused where it is damaged."""
        with suppress(ForeignSnapshot):
            verify_announcement(announcement, self._key, self._usecase.features.fingerprint)
            if any(one.recipe in self._usecase.recipes for one in announcement.models):
                self._told = self._told or announcement
                self._announced = self._told.example_offsets

    def _resume(self, announcement: ModelAnnouncement, offset: int) -> bool:
        """Go on from an announcement; return whether it is one of ours to go on from.

        Raises SnapshotRefused of one that is damaged.
        """
        features = self._usecase.features
        try:
            lessons = Lessons.resume(
                announcement, self._usecase.recipes, features.names, features.fingerprint, self._key,
                self._usecase.verdicts.alarms,
            )  # fmt: skip
        except ForeignSnapshot as error:
            log.warning("%s/0 at offset %d: not gone on with: %s", self._topics.models.name, offset, error)
            return False
        self.lessons, self._resumable = lessons, announcement.example_offsets
        self._announced = self._announced or announcement.example_offsets
        if self._told:  # what is out, though nothing goes on from it
            self.lessons.announced(self._told)
        log.info("models %s go on learning", ", ".join(one.model_id for one in lessons.learners.values()))
        return True

    def _change(self, record: Logged) -> AliasChange | None:
        """Return the change of the champion in a record of the alias topic, None where it is none to go by."""
        try:
            change = _decode_change(record.value)
            if change.recipe not in self.lessons.learners:
                raise SnapshotRefused(f"there is no recipe {change.recipe} here")
            if change.model:
                verify(change.model, self._key, self._usecase.features.fingerprint)
                if change.model.recipe != change.recipe:
                    raise SnapshotRefused(f"snapshot {change.model.model_id}: pinned as one of {change.recipe}")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, SnapshotRefused) as error:
            self._metrics.models_refused.inc()
            log.error("%s/0 at offset %d: refused: %s", self._topics.aliases.name, record.offset, error)
            return None
        return change

    async def _tell_changes(self) -> None:
        while self.lessons.changes:
            change = self.lessons.changes[0]
            await self._tell(change)
            log.warning("%s", change.reason)
            self.lessons.changes.remove(change)

    async def _tell(self, change: AliasChange) -> None:
        await self._sender.send(self._topics.aliases.name, CHAMPION.encode(), encode(change))
        await self._sender.acked(self._sender.mark())

    async def _read(self, batch: Batch) -> Rows:
        """Return what may be learnt of a batch, once Kafka has the rest."""
        latest = int(self._clock() * 1000) + self._max_ahead
        examples: list[Example] = []
        at: list[int] = []
        dead: list[tuple[int, Poison]] = []
        for row, value in enumerate(batch.records.values()):
            try:
                example = _decode(value, latest)
                if (example.label_partition or 0) >= self._topics.labels.partitions:
                    raise Poison("invalid", f"label_partition {example.label_partition}: there is no such")
                examples.append(example)
                at.append(row)
            except Poison as poison:
                dead.append((row, poison))
        rows = self.lessons.rows(examples)
        for row, example, fits in zip(at, examples, rows.fits.tolist(), strict=True):
            if not fits and example.feature_set == self.lessons.feature_set:
                dead.append((row, Poison(Outcome.UNFIT_VALUE, "a value that no model may learn from")))
        await self._dead_letters.send(batch, sorted(dead, key=itemgetter(0)))
        return rows

    def _learn(self, rows: Rows) -> None:
        outcomes = Counter(self.lessons.take_rows(rows))
        for outcome, count in outcomes.items():
            if outcome is Outcome.LEARNT:
                self._metrics.examples.inc(count)
            elif outcome is Outcome.DUPLICATE:
                self._metrics.duplicates.labels(STAGE).inc(count)
            else:
                self._metrics.examples_refused.labels(outcome).inc(count)
        for recipe, learner in self.lessons.learners.items():
            trips = learner.guard.trips - self._trips.get(recipe, 0)
            self._metrics.guard_trips.labels(recipe).inc(trips)
            if trips:
                log.error("%s: its model went wrong: it learns from an earlier one, later", recipe)
            self._trips[recipe] = learner.guard.trips


def _decoded(record: Logged) -> ModelAnnouncement:
    try:
        return _decode_announcement(record.value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SnapshotRefused(f"no announcement: {error}") from None
