"""Dead letters on their way: sent, counted, acknowledged."""

import asyncio
from collections.abc import Iterable

from schemas.codec import Poison
from streams.metrics import Metrics
from streams.runtime.batches import Batch
from streams.runtime.dlq import dead_letter
from streams.runtime.sender import Sender


class DeadLetters:
    """The way into the DLQ topic of a use case."""

    def __init__(self, sender: Sender, topic: str, metrics: Metrics) -> None:
        self._sender, self._topic, self._metrics = sender, topic, metrics

    async def send(self, batch: Batch, dead: Iterable[tuple[int, Poison]]) -> None:
        """Put rows of a batch aside with their reasons; returns once Kafka has acknowledged them."""
        acks = []
        for row, poison in dead:
            letter = dead_letter(batch.records, row, batch.topic, batch.partition, poison)
            acks.append(await self._sender.send(self._topic, letter.key, letter.value, letter.headers))
            self._metrics.dlq.labels(letter.reason).inc()
        await asyncio.gather(*acks)
