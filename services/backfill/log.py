"""What Kafka has of a use case's events and labels, up to one offset in each partition."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.events import Label
from schemas.topics import Topic, Topics
from streams.agents.intake import EventReader
from streams.agents.joiner import read_labels
from streams.runtime.connection import connection
from streams.runtime.hop import EVENT, HopRows
from streams.runtime.reading import read_partition
from streams.runtime.records import Records
from streams.runtime.topics import answering
from streams.settings import Kafka
from streams.usecases import UseCase


@dataclass
class Log:
    """Events in the order of their partitions, labels, and by topic the offset before which each partition was read.

    Poison is left out: whoever reads the topics live has buried it.
    """

    ends: dict[str, list[int]]
    events: list[HopRows] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)


async def read_log(kafka: Kafka, usecase: UseCase, topics: Topics, latest: int) -> Log:
    """Return what Kafka has now; a time after `latest` (ms) is poison. Raises KafkaUnavailable, TopicMismatch.

    The labels' ends are taken before the events': a label is sent after its event, so each has its event here.
    """
    log, reader = Log(await _ends(kafka, (topics.labels, topics.events, *topics.hops))), EventReader(usecase)
    for partition in range(topics.events.partitions):
        async for records in read_partition(kafka, topics.events, partition):
            rows, _ = reader.read(_before(records, log.ends[topics.events.name][partition]), partition, latest)
            log.events.append(rows.take((rows.kinds == EVENT).nonzero()[0]))
    for partition in range(topics.labels.partitions):
        async for records in read_partition(kafka, topics.labels, partition):
            log.labels += _labels(_before(records, log.ends[topics.labels.name][partition]), latest)
    return log


def _before(records: Records, end: int) -> Records:
    return records.take(records.offsets < end)


def _labels(records: Records, latest: int) -> Iterator[Label]:
    return (arrival.content for arrival in read_labels(records, latest) if isinstance(arrival.content, Label))


async def _ends(kafka: Kafka, topics: tuple[Topic, ...]) -> dict[str, list[int]]:
    consumer = AIOKafkaConsumer(**connection(kafka), enable_auto_commit=False)
    with answering(kafka):
        try:
            await consumer.start()
            ends = {}
            for topic in topics:
                places = [TopicPartition(topic.name, number) for number in range(topic.partitions)]
                found = await consumer.end_offsets(places)
                ends[topic.name] = [found[place] for place in places]
            return ends
        finally:
            await consumer.stop()
