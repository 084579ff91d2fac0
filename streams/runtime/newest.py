"""The records of a partition, the newest first: where a state that travels in a topic is found again."""

from collections.abc import AsyncGenerator
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaTimeoutError

from schemas.topics import MB
from streams.runtime.connection import connection
from streams.settings import Kafka

PATIENCE_MS = 20_000
MORE_AT_ONCE = 4  # as many records as before: the first is nearly always the one that is looked for


class Logged(NamedTuple):
    """A record's offset, value and key, empty where they are null."""

    offset: int
    value: bytes
    key: bytes = b""


async def newest_first(
    kafka: Kafka, topic: str, partition: int = 0, patience_ms: int = PATIENCE_MS
) -> AsyncGenerator[Logged, None]:
    """Yield the partition's records from its end back to its beginning.

    Raises KafkaError, also when a record does not come: an early end would say that there is none.
    """
    place = TopicPartition(topic, partition)
    consumer = AIOKafkaConsumer(**connection(kafka), enable_auto_commit=False, max_partition_fetch_bytes=16 * MB)
    await consumer.start()
    try:
        consumer.assign([place])
        begin = (await consumer.beginning_offsets([place]))[place]
        end = (await consumer.end_offsets([place]))[place]
        count = 1
        while begin < end:
            start = max(begin, end - count)
            for record in reversed(await _between(consumer, place, start, end, patience_ms)):
                yield record
            end, count = start, MORE_AT_ONCE * count
    finally:
        await consumer.stop()


async def _between(
    consumer: AIOKafkaConsumer, place: TopicPartition, start: int, end: int, patience_ms: int
) -> list[Logged]:
    """Return the records there are from `start` to before `end`; compaction leaves gaps, but never at the log's end."""
    found: list[Logged] = []
    consumer.seek(place, start)
    position = start
    while position < end:
        records = (await consumer.getmany(place, timeout_ms=patience_ms)).get(place)
        if not records:
            raise KafkaTimeoutError(f"{place.topic}/{place.partition}: the records from {position} on do not come")
        position = records[-1].offset + 1
        found += [
            Logged(record.offset, record.value or b"", record.key or b"") for record in records if record.offset < end
        ]
    return found
