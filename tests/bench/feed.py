"""Put events onto a topic fast, and count what has arrived on another."""

from collections import defaultdict
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder
from kafka import KafkaConsumer, TopicPartition

from tests.bench.workload import Workload

BATCH_BYTES = 16_384  # what Kafka's own producer fills under load (its batch.size)


async def load(kafka: str, topic: str, partitions: int, events: Workload) -> None:
    """Write the events in order, each to its key's partition, in a busy producer's batches; then flush."""
    async with AIOKafkaProducer(
        bootstrap_servers=kafka, max_batch_size=BATCH_BYTES, max_request_size=1 << 20, linger_ms=1
    ) as producer:
        open_batches: dict[int, BatchBuilder] = defaultdict(producer.create_batch)
        for partition, key, value in zip(events.partition(partitions), events.keys, events.values, strict=True):
            batch = open_batches[partition]
            if batch.append(key=key, value=value, timestamp=None) is None:
                await producer.send_batch(open_batches.pop(partition), topic, partition=partition)
                open_batches[partition].append(key=key, value=value, timestamp=None)
        for partition, batch in open_batches.items():
            await producer.send_batch(batch, topic, partition=partition)
        await producer.flush()


class Counter:
    """Counts the records that have come onto a topic since it was made."""

    def __init__(self, kafka: str, topic: str, partitions: int) -> None:
        self._consumer = KafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False)
        self._partitions = [TopicPartition(topic, partition) for partition in range(partitions)]
        self._start = self._end()

    def count(self) -> int:
        """Return how many records there are by now."""
        return self._end() - self._start

    def _end(self) -> int:
        return sum(self._consumer.end_offsets(self._partitions).values())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._consumer.close()
