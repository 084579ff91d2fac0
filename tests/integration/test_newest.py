"""The records of a real topic from its end back: all of them, as far back as there are any."""

import asyncio

from kafka import TopicPartition

from streams.runtime.newest import Logged, newest_first
from streams.runtime.producer import Producer
from streams.usecases import FRAUD
from tests.local import created, forget

TOPICS = FRAUD.deployed("newest").topics(1)


async def everything(kafka: str) -> list[Logged]:
    return [record async for record in newest_first(kafka, TOPICS.examples.name)]


def test_records_come_newest_first(kafka_server: str) -> None:
    """None of an empty topic; of others every record once from the end to the beginning."""
    with created(kafka_server, TOPICS):
        assert asyncio.run(everything(kafka_server)) == []
        sent = [f"{number}".encode() for number in range(30)]
        with Producer(kafka_server, linger_ms=1) as producer:
            for value in sent:
                producer.send(TOPICS.examples.name, value)
        assert asyncio.run(everything(kafka_server)) == [Logged(at, sent[at]) for at in reversed(range(30))]
        forget(kafka_server, {TopicPartition(TOPICS.examples.name, 0): 27})
        assert [record.offset for record in asyncio.run(everything(kafka_server))] == [29, 28, 27]
