"""The head of a topic, looked at from outside: the newest record of each partition, whoever reads the topic where."""

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaTimeoutError

from schemas.topics import MB, Topic
from streams.runtime.connection import connection
from streams.runtime.retrying import OnRetry, until_answered
from streams.settings import Kafka

PATIENCE_MS = 10_000


class Head:
    """Follows the newest records of a topic; waits while Kafka is away, and tells `on_retry` of each attempt.

    `ends` has the offset after the last record of each partition, as of the last look.
    """

    def __init__(self, kafka: Kafka, topic: Topic, on_retry: OnRetry) -> None:
        self.ends: dict[int, int] = {}
        self._kafka, self._topic, self._on_retry = kafka, topic, on_retry

    async def start(self) -> None:
        """Connect; raises KafkaError if no broker answers."""
        self._consumer = AIOKafkaConsumer(
            **connection(self._kafka), enable_auto_commit=False, max_partition_fetch_bytes=MB
        )
        await self._consumer.start()
        self._places = [TopicPartition(self._topic.name, number) for number in range(self._topic.partitions)]
        self._consumer.assign(self._places)

    async def stop(self) -> None:
        """Disconnect."""
        await self._consumer.stop()

    async def look(self) -> list[bytes]:
        """Return the values of the partitions' last records, of those that have had one since the last look."""
        return await until_answered(self._look, self._on_retry)

    async def _look(self) -> list[bytes]:
        begins = await self._consumer.beginning_offsets(self._places)
        ends = await self._consumer.end_offsets(self._places)
        missing = {place for place in self._places if begins[place] < ends[place] != self.ends.get(place.partition)}
        for place in missing:
            self._consumer.seek(place, ends[place] - 1)
        newest: dict[TopicPartition, bytes] = {}
        while missing:
            found = await self._consumer.getmany(*missing, timeout_ms=PATIENCE_MS)
            if not any(found.values()):
                raise KafkaTimeoutError(f"{self._topic.name}: its newest records do not come")
            newest |= {place: records[-1].value or b"" for place, records in found.items() if records}
            missing -= found.keys()
        self.ends = {place.partition: ends[place] for place in self._places}
        return list(newest.values())
