"""A few records sent by a command, which ends once Kafka has them."""

from collections.abc import Mapping

from streams.runtime.sender import Sender
from streams.runtime.topics import answering
from streams.settings import Kafka

DELIVERY_SECONDS = 20.0


async def deliver(kafka: Kafka, client_id: str, topic: str, records: Mapping[bytes, bytes | None]) -> None:
    """Send records by their keys, a null to take one back, and return once Kafka has them.

    Raises KafkaUnavailable and UndeliveredError.
    """
    with answering(kafka):
        sender = Sender(kafka, client_id, DELIVERY_SECONDS)
        await sender.start()
        try:
            for key, value in records.items():
                await sender.send(topic, key, value)
            await sender.acked(sender.mark())
        finally:
            await sender.stop()
