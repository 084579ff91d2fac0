"""The newest record of a partition: where a state that travels in a topic is found again."""

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaTimeoutError

from schemas.topics import MB

PATIENCE_MS = 20_000


async def newest(kafka: str, topic: str, partition: int = 0, patience_ms: int = PATIENCE_MS) -> bytes | None:
    """Return the value of the partition's last record, None where the partition is empty.

    Raises KafkaError, also when the record does not come: an answer of None would say that there is none.
    """
    place = TopicPartition(topic, partition)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka.split(","), enable_auto_commit=False, max_partition_fetch_bytes=16 * MB
    )
    await consumer.start()
    try:
        consumer.assign([place])
        begin = (await consumer.beginning_offsets([place]))[place]
        end = (await consumer.end_offsets([place]))[place]
        if begin == end:
            return None
        consumer.seek(place, end - 1)  # compaction never removes the last record
        records = (await consumer.getmany(place, timeout_ms=patience_ms)).get(place)
        if not records:
            raise KafkaTimeoutError(f"{topic}/{partition}: the newest record does not come")
        value: bytes | None = records[-1].value
        return value or b""
    finally:
        await consumer.stop()
