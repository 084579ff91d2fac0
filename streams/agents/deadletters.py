"""Dead letters on their way: sent, counted, acknowledged."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.codec import Poison
from streams.metrics import Metrics
from streams.runtime.batches import Batch
from streams.runtime.dlq import dead_letter
from streams.runtime.records import Records
from streams.runtime.sender import Sender


class DeadLetters:
    """The way into the DLQ topic of a use case."""

    def __init__(self, sender: Sender, topic: str, metrics: Metrics) -> None:
        self._sender, self._topic, self._metrics = sender, topic, metrics

    async def put(
        self, topic: str, records: Records, partitions: NDArray[np.int64], dead: Sequence[tuple[int, Poison]]
    ) -> None:
        """Hand over rows of a topic's records, of the partitions given row by row, with their reasons.

        They are not acknowledged yet: what depends on them awaits the sender's `acked`.
        """
        if not dead:
            return
        letters = [dead_letter(records, row, topic, int(partitions[row]), poison) for row, poison in dead]
        await self._sender.send_many(
            self._topic, [one.key for one in letters], [one.value for one in letters], [one.headers for one in letters]
        )
        for reason, count in Counter(one.reason for one in letters).items():
            self._metrics.dlq.labels(reason).inc(count)

    async def send(self, batch: Batch, dead: Sequence[tuple[int, Poison]]) -> None:
        """Put rows of a batch aside with their reasons; returns once Kafka has acknowledged them."""
        if dead:
            await self.put(batch.topic, batch.records, np.full(len(batch.records), batch.partition), dead)
            await self._sender.acked(self._sender.mark())
