"""Where a consumer group stands: its committed offsets, beside where the partitions begin and end."""

import asyncio
from collections.abc import Collection, Iterable, Mapping

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition
from faust.types import TP

from schemas.topics import Topic
from streams.runtime.batches import EARLIEST
from streams.runtime.connection import connection
from streams.runtime.health import Log
from streams.runtime.retrying import OnRetry, until_answered
from streams.settings import Kafka

REQUEST_MS = 5000


def _quiet(_: Exception) -> None:
    pass


class GroupOffsets:
    """Reads the offsets of a group without being a member of it, and waits while Kafka is away.

    `on_retry` is told of each attempt that failed. Without a group it reads the logs' offsets alone.
    """

    def __init__(self, kafka: Kafka, group: str | None, on_retry: OnRetry = _quiet) -> None:
        self._kafka, self._group, self._on_retry = kafka, group, on_retry

    async def start(self) -> None:
        """Connect; raises KafkaError if no broker answers."""
        self._consumer = AIOKafkaConsumer(
            **connection(self._kafka),
            group_id=self._group,
            enable_auto_commit=False,
            request_timeout_ms=REQUEST_MS,
        )
        await self._consumer.start()

    async def stop(self) -> None:
        """Disconnect."""
        await self._consumer.stop()

    async def committed(self, partitions: Collection[TP]) -> dict[TP, int]:
        """Return each partition's committed offset, EARLIEST where there is none."""
        places = [TopicPartition(*tp) for tp in partitions]
        offsets = await until_answered(
            lambda: asyncio.gather(*(self._consumer.committed(place) for place in places)), self._on_retry
        )
        return {tp: EARLIEST if offset is None else offset for tp, offset in zip(partitions, offsets, strict=True)}

    async def ends(self, topic: str, partitions: int) -> dict[TP, int]:
        """Return the offset after the last record of each partition of a topic."""
        places = [TopicPartition(topic, number) for number in range(partitions)]
        ends = await until_answered(lambda: self._consumer.end_offsets(places), self._on_retry)
        return {TP(*tp): offset for tp, offset in ends.items()}

    async def logs(self, topics: Iterable[Topic]) -> dict[TP, Log]:
        """Return where each partition of some topics begins and ends."""
        places = [TopicPartition(topic.name, number) for topic in topics for number in range(topic.partitions)]
        begins, ends = await until_answered(
            lambda: asyncio.gather(self._consumer.beginning_offsets(places), self._consumer.end_offsets(places)),
            self._on_retry,
        )
        return {TP(*place): Log(begins[place], ends[place]) for place in places}

    async def passed(self, ends: Mapping[TP, int]) -> bool:
        """Say whether the group has done everything before `ends`, or it is not kept any more."""
        places = [TopicPartition(*tp) for tp in ends]
        begins = await until_answered(lambda: self._consumer.beginning_offsets(places), self._on_retry)
        committed = await self.committed(list(ends))
        return all(max(committed[tp], begins[TopicPartition(*tp)]) >= end for tp, end in ends.items())
