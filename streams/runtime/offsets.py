"""Where a consumer group stands: its committed offsets, beside where the partitions begin and end."""

import asyncio
from collections.abc import Collection, Mapping

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition
from faust.types import TP

from streams.runtime.batches import EARLIEST


class GroupOffsets:
    """Reads the offsets of a group without being a member of it."""

    def __init__(self, kafka: str, group: str) -> None:
        self._kafka, self._group = kafka, group

    async def start(self) -> None:
        """Connect; raises KafkaError if no broker answers."""
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._kafka.split(","), group_id=self._group, enable_auto_commit=False
        )
        await self._consumer.start()

    async def stop(self) -> None:
        """Disconnect."""
        await self._consumer.stop()

    async def committed(self, partitions: Collection[TP]) -> dict[TP, int]:
        """Return each partition's committed offset, EARLIEST where there is none."""
        offsets = await asyncio.gather(*(self._consumer.committed(TopicPartition(*tp)) for tp in partitions))
        return {tp: EARLIEST if offset is None else offset for tp, offset in zip(partitions, offsets, strict=True)}

    async def ends(self, topic: str, partitions: int) -> dict[TP, int]:
        """Return the offset after the last record of each partition of a topic."""
        ends = await self._consumer.end_offsets([TopicPartition(topic, number) for number in range(partitions)])
        return {TP(*tp): offset for tp, offset in ends.items()}

    async def passed(self, ends: Mapping[TP, int]) -> bool:
        """Say whether the group has done everything before `ends`, or it is not kept any more."""
        begins = await self._consumer.beginning_offsets([TopicPartition(*tp) for tp in ends])
        committed = await self.committed(list(ends))
        return all(max(committed[tp], begins[TopicPartition(*tp)]) >= end for tp, end in ends.items())
