"""A consumer of results that takes little of the processor: it reads no more than which event each one is of."""

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from aiokafka.protocol.fetch import FetchRequest, FetchRequest_v4, FetchResponse_v4
from kafka import KafkaConsumer, TopicPartition

from streams.runtime.records import Records, parse
from tests.bench import wire

WAIT_MS = 200
LINGER_SECONDS = 0.001  # before it asks again, as the pipeline's own consumers do
MAX_BYTES = 16 << 20


def ends(broker: str, topic: str, partitions: int) -> dict[int, int]:
    """Return the offset of the next record of each partition."""
    consumer = KafkaConsumer(bootstrap_servers=broker)
    try:
        offsets = consumer.end_offsets([TopicPartition(topic, number) for number in range(partitions)])
    finally:
        consumer.close()
    return {one.partition: offset for one, offset in offsets.items()}


class Sink:
    """Reads a topic that one broker leads, from `offsets` (by partition) on; as a context manager it is connected."""

    def __init__(self, broker: str, topic: str, offsets: dict[int, int]) -> None:
        self._broker, self._topic, self._offsets, self._number = broker, topic, dict(offsets), 0

    def __enter__(self) -> Self:
        self._received = bytearray()
        self._connection = wire.connect(self._broker)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()

    def take(self) -> list[Records]:
        """Return what has come since, of each partition; nothing after `WAIT_MS` without any.

        Raises OSError where the broker ends the connection, does not answer or refuses.
        """
        time.sleep(LINGER_SECONDS)
        wanted = [(partition, offset, MAX_BYTES) for partition, offset in self._offsets.items()]
        request = FetchRequest(WAIT_MS, 1, MAX_BYTES, 0, [(self._topic, wanted)]).build(FetchRequest_v4)
        self._connection.sendall(wire.frame(request, self._number))
        self._number += 1
        return list(self._read(wire.answer(self._connection, self._received)))

    def _read(self, answer: bytes) -> Iterator[Records]:
        for _, partitions in FetchResponse_v4.decode(answer).topics:
            for partition, error, _, _, _, data in partitions:
                if error:
                    raise OSError(f"partition {partition}: the broker has refused to be read with error {error}")
                if data:
                    records, self._offsets[partition] = parse(data, self._offsets[partition])
                    yield records
