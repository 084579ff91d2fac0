"""A partition read from outside the streams, to where it ended when the reading began: its records as bytes."""

import time
from collections.abc import AsyncIterator

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaTimeoutError

from schemas.topics import MB, Topic
from streams.runtime.connection import connection
from streams.runtime.fetching import RawFetcher
from streams.runtime.records import Records
from streams.runtime.topics import TopicMismatch, answering, verify
from streams.settings import Kafka

PATIENCE = 20.0  # seconds without a record


async def read_partition(
    kafka: Kafka, topic: Topic, partition: int = 0, since: int | None = None, first: int = 0
) -> AsyncIterator[Records]:
    """Yield what a partition holds now, from the first record on that has a time of `since` (epoch ms) or later and
    an offset of `first` or more.

    No record stops it, whatever its headers are. Raises KafkaUnavailable, and TopicMismatch where the topic is
    not there as it is declared.
    """
    place = TopicPartition(topic.name, partition)
    consumer = AIOKafkaConsumer(
        **connection(kafka),
        enable_auto_commit=False,
        auto_offset_reset="none",
        max_partition_fetch_bytes=16 * MB,
    )
    try:
        with answering(kafka):
            await consumer.start()
            fetcher = RawFetcher.adopt(consumer._fetcher, 0.0)
            await _verify(consumer, topic)
            consumer.assign([place])
            begin, end = await _span(consumer, place, since)
            consumer.seek(place, max(begin, first))
            heard = time.monotonic()
            while (at := await consumer.position(place)) < end:
                await fetcher.wait([place], PATIENCE)
                for fetched in fetcher.take([place]).values():
                    yield fetched.records.take(fetched.records.offsets < end)
                    heard = time.monotonic()
                if time.monotonic() - heard > PATIENCE:
                    raise KafkaTimeoutError(f"{topic.name}/{partition}: offset {at} does not come")
    finally:
        await consumer.stop()


async def _verify(consumer: AIOKafkaConsumer, topic: Topic) -> None:
    cluster = await consumer._client.fetch_all_metadata()
    if topic.name not in cluster.topics():
        raise TopicMismatch(f"there is no topic {topic.name} yet")
    verify([topic], {topic.name: len(cluster.partitions_for_topic(topic.name))})


async def _span(consumer: AIOKafkaConsumer, place: TopicPartition, since: int | None) -> tuple[int, int]:
    """Return the offset of the first record from `since` on, and the offset after the last one."""
    end = (await consumer.end_offsets([place]))[place]
    if since is None:
        return (await consumer.beginning_offsets([place]))[place], end
    found = (await consumer.offsets_for_times({place: since}))[place]
    return (end if found is None else found.offset), end
