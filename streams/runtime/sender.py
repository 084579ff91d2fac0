"""Records on their way to Kafka: whole batches are handed over at once, and their acknowledgements awaited later.

The order of batches to one partition is kept, also when the broker makes one of them wait: there is one batch per
partition in flight, and aiokafka puts one that must be retried back in front. A broker may have several requests in
flight, of different partitions: by itself aiokafka would let what one stage makes wait for the scores of another.
A batch may be written twice if the broker's answer is lost (receivers drop what they have seen, design D3);
it is never lost in silence. Once a batch has failed for good nothing that waits is written any more, as a receiver that
has seen what came after it in its partition would take the resent batch for a duplicate; of other partitions what is
in flight by then may still be written.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import count
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.errors import KafkaError, ProducerClosed
from aiokafka.producer.message_accumulator import BatchBuilder, MessageAccumulator, MessageBatch
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition

from streams.runtime import faults
from streams.runtime.connection import connection
from streams.runtime.partitioner import by_partition, partition_of
from streams.runtime.recordbatch import I64
from streams.runtime.records import MAX_BATCH_BYTES, Header, Piece, Spans, batch_count, join, pieces
from streams.settings import Kafka

Ack = asyncio.Future[object]
Mark = frozenset[Ack]

REQUEST_TIMEOUT = 20.0  # seconds for one request
DELIVERY_TIMEOUT = 300.0  # seconds within which a broker may come back
TURNS = 8  # of the event loop; aiokafka takes fewer to write what was handed over
ROOM = 64 << 20  # bytes handed over but not acknowledged, above which `room` waits


class UndeliveredError(Exception):
    """Kafka has refused or not acknowledged an output; what depends on it must not be checkpointed."""


class _Prebuilt(BatchBuilder):
    """A batch whose bytes exist already; aiokafka finds it closed and built."""

    def __init__(self, data: bytes | memoryview, records: int) -> None:
        self._buffer = data
        self._relative_offset = records
        self._closed = True


class _Gathering(BatchBuilder):
    """A batch that takes in more records until aiokafka picks it up, and is written only then.

    A partition has one batch in flight: without this, many small ones would each wait for the one before.
    """

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self._bytes = 0
        self._relative_offset = 0
        self._buffer: memoryview | None = None
        self._closed = False

    def gather(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self._bytes += piece.size
        self._relative_offset += piece.rows.size

    def fits(self, piece: Piece) -> bool:
        return self._buffer is None and self._bytes + piece.size <= MAX_BATCH_BYTES

    def size(self) -> int:
        return self._bytes

    def _build(self) -> memoryview:
        if self._buffer is None:
            self._buffer = join(self._pieces)
            self._pieces.clear()
            self._closed = True
        return self._buffer


class _Queue(MessageAccumulator):
    """aiokafka's queue, which writes nothing after a batch that failed."""

    client: AIOKafkaClient

    def drop(self, error: BaseException) -> None:
        """Fail what waits; what is in flight has its own end."""
        waiting = [batch for batches in self._batches.values() for batch in batches]
        self._batches.clear()
        for batch in waiting:
            if not batch.future.done():
                batch.future.set_exception(error)

    def drain_by_nodes(self, ignore_nodes: Collection[int], muted_partitions: Collection[TopicPartition]) -> Any:
        """Take batches to be written, unless one has failed whose `_settle` is still to be called.

        Of brokers with a request in flight those not connected are left out: each request would connect by itself.
        """
        for batch in list(self._pending_batches):
            if batch.future.done() and (error := batch.future.exception()) is not None:
                self.drop(error)
        return super().drain_by_nodes({node for node in ignore_nodes if not self._connected(node)}, muted_partitions)

    def _connected(self, node: int) -> bool:
        connection = self.client._conns.get((node, ConnectionGroup.DEFAULT))
        return connection is not None and connection.connected()


class _InFlight(Counter[int]):
    """How many requests each broker has to answer; aiokafka's set of them had one a broker."""

    def add(self, node: int) -> None:
        """Note another request."""
        self[node] += 1

    def remove(self, node: int) -> None:
        """Note that one has ended."""
        self[node] -= 1
        if not self[node]:
            del self[node]


class Sender:
    """Sends batches and single records with acks=all, and knows which are still unacknowledged."""

    def __init__(self, kafka: Kafka, client_id: str = "headrace", delivery_timeout: float = DELIVERY_TIMEOUT) -> None:
        self._kafka = kafka
        self._client_id = client_id
        self._delivery_timeout = delivery_timeout
        self._unacked: dict[Ack, int] = {}
        self._bytes = 0
        self._failure: UndeliveredError | None = None
        self._turn = count()

    async def start(self) -> None:
        """Connect; raises KafkaError if no broker answers."""
        self._producer = AIOKafkaProducer(
            **connection(self._kafka),
            client_id=self._client_id,
            acks="all",
            linger_ms=0,
            request_timeout_ms=int(REQUEST_TIMEOUT * 1000),
        )
        self._queue: _Queue = self._producer._message_accumulator
        self._queue.__class__ = _Queue
        self._queue.client = self._producer.client
        self._producer._sender._in_flight = _InFlight()
        self._queue._batch_ttl = self._delivery_timeout  # else the timeout of a request
        try:
            await self._producer.start()
        except KafkaError:
            await self._producer.stop()
            raise

    async def stop(self, timeout: float = 5.0) -> None:
        """Wait at most `timeout` seconds for what is under way, then disconnect."""
        if self._unacked:
            await asyncio.wait(self._unacked, timeout=timeout)
        self._queue.fail_all(ProducerClosed())
        await self._producer.stop()

    async def partitions(self, topic: str) -> int:
        """How many partitions a topic has. Must be asked once before the topic is sent to."""
        return len(await self._producer.partitions_for(topic))

    def send_records(
        self, topic: str, partition: int, keys: Spans, values: Spans, timestamps: I64, rows: I64 | None = None
    ) -> None:
        """Hand over records of one partition (all, or `rows`); they travel with what else waits for it."""
        for piece in pieces(keys, values, timestamps, rows):
            target = self._target(topic, partition)
            waiting = self._queue._batches.get(target)
            batch = waiting[-1] if waiting else None
            if batch is None or not isinstance(batch._builder, _Gathering) or not batch._builder.fits(piece):
                if batch is not None and isinstance(batch._builder, _Gathering):
                    batch._builder._build()  # it is full, and lets go of buffers that other partitions share
                batch = self._append(_Gathering(), target)
            batch._builder.gather(piece)
            self._count(batch.future, piece.size)

    def send_batch(self, topic: str, partition: int, batch: bytes | memoryview) -> Ack:
        """Hand over one record batch as `records.build` makes it; answers the future of its acknowledgement."""
        target = self._target(topic, partition)
        ack: Ack = self._append(_Prebuilt(batch, batch_count(batch)), target).future
        self._count(ack, len(batch))
        return ack

    async def written(self) -> None:
        """Let what may be sent now be written, by a task of aiokafka's, before the caller computes on."""
        muted = self._producer._sender._muted_partitions
        if any(target not in muted for target in self._queue._batches):
            for _ in range(TURNS):
                await asyncio.sleep(0)

    def _target(self, topic: str, partition: int) -> TopicPartition:
        if self._failure is not None:
            raise self._failure
        if partition not in (self._producer.client.cluster.partitions_for_topic(topic) or ()):
            raise LookupError(f"{topic}[{partition}] is not known to the sender; ask partitions() first")
        return TopicPartition(topic, partition)

    def _append(self, builder: BatchBuilder, target: TopicPartition) -> MessageBatch:
        batch = self._queue._append_batch(builder, target)
        self._unacked[batch.future] = 0
        batch.future.add_done_callback(lambda done: self._settle(done, target))
        return batch

    def _count(self, ack: Ack, size: int) -> None:
        self._unacked[ack] += size
        self._bytes += size

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header] = (),
        partition: int | None = None,
        timestamp: int | None = None,
    ) -> Ack:
        """Hand over one record, for rare things; time in ms, now by default; the size is the broker's to limit."""
        partitions = await self.partitions(topic)
        if partition is None:
            partition = next(self._turn) % partitions if key is None else _partition(key, partitions)
        (batch,) = _with_headers([(key, value, headers)], timestamp)
        return self.send_batch(topic, partition, batch)

    async def send_many(
        self,
        topic: str,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        headers: Sequence[Sequence[Header]],
    ) -> None:
        """Hand over records with headers, of now, in as few batches as their partitions and sizes allow."""
        partitions = await self.partitions(topic)
        records = list(zip(keys, values, headers, strict=True))
        for partition, rows in by_partition(partition_of(Spans.of(keys), partitions), partitions):
            for batch in _with_headers(records[row] for row in rows.tolist()):
                self.send_batch(topic, partition, batch)

    @property
    def outstanding(self) -> int:
        """How many batches are handed over but not acknowledged."""
        return len(self._unacked)

    async def room(self) -> None:
        """Wait while too much is unacknowledged; call it once per input batch, or memory is the only bound."""
        while self._bytes > ROOM:
            await asyncio.wait(self._unacked, return_when=asyncio.FIRST_COMPLETED)

    def mark(self) -> Mark:
        """Everything handed over until now, to be awaited with `acked`."""
        return frozenset(self._unacked)

    async def acked(self, mark: Mark) -> None:
        """Wait until everything before `mark` is acknowledged.

        Raises UndeliveredError if anything ever handed over has failed: then no later checkpoint is sound.
        """
        if mark:
            await asyncio.wait(mark, return_when=asyncio.FIRST_EXCEPTION)
            await asyncio.sleep(0)  # `_settle` is called back for each of them
        if self._failure is not None:
            raise self._failure

    def _settle(self, ack: Ack, target: TopicPartition) -> None:
        faults.point("settled")
        self._bytes -= self._unacked.pop(ack)
        error = ack.exception()
        if error is not None and self._failure is None:
            self._failure = UndeliveredError(f"{target.topic}[{target.partition}]: {error!r}")
            self._queue.drop(self._failure)


def _with_headers(
    records: Iterable[tuple[bytes | None, bytes | None, Sequence[Header]]], timestamp: int | None = None
) -> Iterator[bytes]:
    """Write records as batches of at most MAX_BATCH_BYTES; one that is larger gets a batch of its own."""
    builder, count = _builder(), 0
    for key, value, headers in records:
        content = {"timestamp": timestamp, "key": key, "value": value, "headers": list(headers)}
        if builder.append(count, **content) is None:  # full; the first record always fits
            yield bytes(builder.build())
            builder, count = _builder(), 0
            builder.append(count, **content)
        count += 1
    if count:
        yield bytes(builder.build())


def _builder() -> DefaultRecordBatchBuilder:
    return DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, MAX_BATCH_BYTES)


def _partition(key: bytes, partitions: int) -> int:
    return int(partition_of(Spans.of([key]), partitions)[0])
