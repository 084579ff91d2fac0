"""Topics of one partition, followed: each record from their ends on, until stopped."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from schemas.topics import MB
from streams.runtime.connection import connection
from streams.runtime.newest import Logged
from streams.settings import Kafka

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0

Take = Callable[[str, Logged], Awaitable[object]]
"""Takes a record of a topic."""


class Follower:
    """Hands each record of some topics to `take`, those of a topic in their order; no error ends it."""

    def __init__(self, kafka: Kafka, topics: Sequence[str], take: Take) -> None:
        self._kafka, self._take = kafka, take
        self._partitions = [TopicPartition(topic, 0) for topic in topics]
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Settle where to follow from, the topics' ends: what is there already is for others to read."""
        self._consumer = AIOKafkaConsumer(
            **connection(self._kafka), enable_auto_commit=False, max_partition_fetch_bytes=16 * MB
        )
        await self._consumer.start()
        self._consumer.assign(self._partitions)
        await self._consumer.seek_to_end(*self._partitions)
        for partition in self._partitions:
            await self._consumer.position(partition)

    def follow(self) -> None:
        """Begin to take records."""
        self._following = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Follow no longer."""
        if self._following:
            self._following.cancel()
            with suppress(asyncio.CancelledError):
                await self._following
        await self._consumer.stop()

    async def _follow(self) -> None:
        """Take each record, until cancelled."""
        names = ", ".join(partition.topic for partition in self._partitions)
        while True:
            try:
                async for record in self._consumer:
                    await self._take(record.topic, Logged(record.offset, record.value or b"", record.key or b""))
            except Exception as error:
                ours = None if isinstance(error, KafkaError) else error
                log.warning("%s: not followed, trying again: %s", names, error, exc_info=ours)
            await asyncio.sleep(RETRY_SECONDS)
