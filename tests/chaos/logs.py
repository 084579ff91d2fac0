"""Topics read whole, as bytes: what the oracle is told, and nothing else."""

from collections.abc import AsyncIterator
from typing import NamedTuple

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.topics import Topic
from streams.runtime.fetching import RawFetcher
from streams.runtime.records import Records
from tests.chaos.workload import POISON_HEADER

STALL_SECONDS = 60.0


class Poisoned(NamedTuple):
    """A record that was sent to be buried: its place `topic/partition/offset`, the reason, key and value."""

    place: str
    reason: str
    key: bytes | None
    value: bytes | None


async def read(kafka: str, topic: Topic) -> AsyncIterator[tuple[TopicPartition, Records]]:
    """Yield every record that a topic has by now, each partition's in order."""
    partitions = [TopicPartition(topic.name, number) for number in range(topic.partitions)]
    async with AIOKafkaConsumer(bootstrap_servers=kafka, max_partition_fetch_bytes=16 << 20) as consumer:
        fetcher = RawFetcher.adopt(consumer._fetcher, linger=0.0)
        consumer.assign(partitions)
        await consumer.seek_to_beginning()
        ends = await consumer.end_offsets(partitions)
        left = {partition for partition, end in ends.items() if await consumer.position(partition) < end}
        while left:
            await fetcher.wait(left, timeout=STALL_SECONDS)
            fetched = fetcher.take(left)
            if not fetched:
                raise TimeoutError(f"{topic.name} cannot be read to its ends")
            for place, (records, next_offset) in fetched.items():
                yield place, records
                if next_offset >= ends[place]:
                    left.discard(place)


def sift(place: TopicPartition, records: Records, poison: list[Poisoned]) -> Records:
    """Return the sound records and add the others to `poison`."""
    sound = ~records.has_headers
    if sound.all():
        return records
    for row in np.flatnonzero(~sound).tolist():
        reasons = [value for name, value in records.headers(row) if name == POISON_HEADER]
        sound[row] = not reasons
        if reasons:
            one = records.take(slice(row, row + 1))
            at = f"{place.topic}/{place.partition}/{records.offsets[row]}"
            poison.append(Poisoned(at, (reasons[0] or b"").decode(), one.keys()[0], one.values()[0]))
    return records.take(sound)
