"""Model swap: follow the model topic and put each new snapshot to use between two batches."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from schemas.events import ModelAnnouncement
from schemas.topics import MB
from streams.agents.scoring import ServingModel
from streams.metrics import Metrics
from streams.models.compiled import scorer
from streams.models.recipes import RECIPES
from streams.models.snapshot import SnapshotRefused, snapshot_of, unseal
from streams.runtime.newest import Logged, newest_first
from streams.usecases import UseCase

log = logging.getLogger(__name__)

_decode = msgspec.json.Decoder(ModelAnnouncement).decode

RETRY_SECONDS = 5.0
MOST_TRIED = 100  # records that are looked at for a first model

Swap = Callable[[ServingModel], None]


class ModelFeed:
    """The models of a use case as they are announced, each handed to `swap` if it may be used.

    At the start the recipe's unlearnt model serves until the newest sound record of the topic is found. A snapshot
    with a wrong signature or of another feature set is refused by its offset, and the model in use stays.
    """

    def __init__(self, usecase: UseCase, kafka: str, topic: str, key: bytes, metrics: Metrics, swap: Swap) -> None:
        self._usecase, self._kafka, self._key = usecase, kafka, key
        self._partition = TopicPartition(topic, 0)
        self._metrics, self._swap = metrics, swap

    async def start(self) -> None:
        """Put the newest model to use and begin to follow the topic."""
        unlearnt = RECIPES[self._recipe].make(self._names)
        self._use(ServingModel(f"{self._recipe}@0", scorer(unlearnt, self._names), int(time.time() * 1000)))
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._kafka.split(","), enable_auto_commit=False, max_partition_fetch_bytes=16 * MB
        )
        await self._consumer.start()
        self._consumer.assign([self._partition])
        await self._consumer.seek_to_end(self._partition)
        # Where to follow from is settled first: what is announced meanwhile comes twice, and nothing is missed.
        await self._consumer.position(self._partition)
        await self._take_newest(newest_first(self._kafka, self._partition.topic))
        self._following = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Follow no longer."""
        self._following.cancel()
        with suppress(asyncio.CancelledError):
            await self._following
        await self._consumer.stop()

    @property
    def _names(self) -> tuple[str, ...]:
        return self._usecase.features.names

    @property
    def _recipe(self) -> str:
        return self._usecase.recipes[0]

    async def _follow(self) -> None:
        """Take each record, until cancelled: scoring can do without a new model, so that no error ends it."""
        while True:
            try:
                async for record in self._consumer:
                    await self._take(Logged(record.offset, record.value or b""))
            except Exception as error:
                ours = None if isinstance(error, KafkaError) else error
                log.warning("%s: not followed, trying again: %s", self._partition.topic, error, exc_info=ours)
            await asyncio.sleep(RETRY_SECONDS)

    async def _take_newest(self, records: AsyncGenerator[Logged, None]) -> None:
        """Take the first that is sound; `records` are the newest of the topic first."""
        tried = 0
        async with aclosing(records):
            async for record in records:
                tried += 1
                if await self._take(record) or tried == MOST_TRIED:
                    return

    async def _take(self, record: Logged) -> bool:
        try:
            announcement = _decode(record.value)
            snapshot = snapshot_of(announcement, self._recipe)
            # Large models take a while to load: not in the event loop.
            unsealed = await asyncio.to_thread(
                unseal, snapshot, self._key, self._usecase.features.fingerprint, self._names
            )
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, SnapshotRefused) as error:
            place = self._partition
            log.error("%s/%d at offset %d: refused, the model in use stays: %s", *place, record.offset, error)
            self._metrics.models_refused.inc()
            return False
        self._use(ServingModel(snapshot.model_id, scorer(unsealed.model, self._names), snapshot.created_at))
        return True

    def _use(self, model: ServingModel) -> None:
        self._metrics.model(model.model_id, model.created_at)
        self._swap(model)
