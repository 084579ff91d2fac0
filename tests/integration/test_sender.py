"""The sender against a real Kafka, also one that goes away and comes back."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.produce import ProduceRequest
from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from streams.runtime.records import Spans, build
from streams.runtime.sender import Sender, UndeliveredError
from tests.local import new_topic

pytestmark = pytest.mark.integration


@pytest.fixture
def kafka(kafka_server: str) -> str:
    return kafka_server


def read(kafka: str, topic: str, partition: int = 0) -> list:
    """Every record of a partition until now."""
    consumer = KafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest", max_partition_fetch_bytes=1 << 22)
    here = TopicPartition(topic, partition)
    consumer.assign([here])
    end = consumer.end_offsets([here])[here]
    records = []
    while consumer.position(here) < end:
        records += consumer.poll(timeout_ms=200).get(here, [])
    consumer.close()
    return records


def batch(values: Sequence[bytes]) -> memoryview:
    times = np.full(len(values), 1_700_000_000_000)
    (built,) = build(Spans.of([None] * len(values)), Spans.of(values), times)
    return built


def test_what_waits_together_travels_together(kafka):
    """Records handed over while others are under way go in few batches, in order, and are all acknowledged."""
    topic = new_topic(kafka)
    values = [b"%d" % i for i in range(2_000)]
    times = np.full(1, 1_700_000_000_000)

    async def scenario() -> int:
        sender = await started(kafka)
        await sender.partitions(topic)
        most = 0
        for value in values:
            sender.send_records(topic, 0, Spans.of([None]), Spans.of([value]), times)
            most = max(most, sender.outstanding)
        await sender.acked(sender.mark())
        assert sender.outstanding == 0
        await sender.stop()
        return most

    assert asyncio.run(scenario()) < 20
    assert [record.value for record in read(kafka, topic)] == values


async def started(kafka: str, **options: float) -> Sender:
    sender = Sender(kafka, **options)
    await sender.start()
    return sender


def test_many_batches_handed_over_at_once_keep_their_order(kafka):
    """Batches of one partition are written in the order of the calls; after `acked` they are readable."""
    topic = new_topic(kafka, 2)
    parts = [[b"%d.%d" % (i, j) for j in range(3)] for i in range(300)]

    async def scenario() -> None:
        sender = await started(kafka)
        assert await sender.partitions(topic) == 2
        for part in parts:
            sender.send_batch(topic, 1, batch(part))
        assert sender.outstanding == 300
        await sender.acked(sender.mark())
        assert sender.outstanding == 0
        assert [record.value for record in read(kafka, topic, 1)] == [v for part in parts for v in part]
        await sender.stop()

    asyncio.run(scenario())


def test_what_is_written_does_not_wait_for_answers(kafka, monkeypatch):
    """A batch is written while another partition's is in flight to the same broker, before its caller computes on."""
    topic = new_topic(kafka, 2)
    written, read_on = [], asyncio.Event()
    send = AIOKafkaConnection.send

    def spied(self, request, *args, **options):
        written.append(type(request))
        return answer(send(self, request, *args, **options))

    async def answer(answered):
        await read_on.wait()
        return await answered

    async def scenario() -> list[int]:
        sender = await started(kafka)
        await sender.partitions(topic)
        monkeypatch.setattr(AIOKafkaConnection, "send", spied)
        counts = []
        for partition in range(2):
            sender.send_batch(topic, partition, batch([b"1"]))
            await sender.written()
            counts.append(written.count(ProduceRequest))
        read_on.set()
        await sender.acked(sender.mark())
        await sender.stop()
        return counts

    assert asyncio.run(scenario()) == [1, 2]
    assert [[record.value for record in read(kafka, topic, partition)] for partition in range(2)] == [[b"1"], [b"1"]]


def test_a_mark_does_not_wait_for_what_came_after(kafka):
    """`acked` waits for what was handed over before its mark, no more."""
    topic = new_topic(kafka)

    async def scenario() -> None:
        sender = await started(kafka)
        await sender.partitions(topic)
        await sender.acked(sender.mark())
        first = sender.send_batch(topic, 0, batch([b"1"]))
        mark = sender.mark()
        later = [sender.send_batch(topic, 0, batch([b"2"])) for _ in range(50)]
        await sender.acked(mark)
        assert first.done()
        assert not later[-1].done()
        await sender.stop()
        assert later[-1].done()

    asyncio.run(scenario())


def test_single_records_carry_key_headers_and_time(kafka):
    """A rare record arrives as it was given, in its key's partition, however large."""
    topic = new_topic(kafka, 4, **{"max.message.bytes": "4000000"})
    value = b"x" * 2_000_000

    async def scenario() -> None:
        sender = await started(kafka)
        await sender.send(topic, b"key", value, [("why", b"too large"), ("none", None)], timestamp=7)
        await sender.send(topic, b"key", None)
        await sender.acked(sender.mark())
        await sender.stop()

    asyncio.run(scenario())
    records = [record for partition in range(4) for record in read(kafka, topic, partition)]
    assert [(r.key, r.value) for r in records] == [(b"key", value), (b"key", None)]
    assert list(records[0].headers) == [("why", b"too large"), ("none", None)]
    assert records[0].timestamp == 7


def test_many_records_with_headers_take_few_batches(kafka):
    """Ten thousand small ones travel in a few batches; one larger than a batch may be travels alone."""
    topic = new_topic(kafka, 2, **{"max.message.bytes": "4000000"})
    values = [b"%d" % i for i in range(10_000)] + [b"x" * 2_000_000, None]
    headers = [[("why", b"%d" % i), ("none", None)] for i in range(len(values))]

    async def scenario() -> int:
        sender = await started(kafka)
        await sender.send_many(topic, [b"key"] * len(values), values, headers)
        await sender.send_many(topic, [], [], [])
        outstanding = sender.outstanding
        await sender.acked(sender.mark())
        await sender.stop()
        return outstanding

    assert asyncio.run(scenario()) < 5
    records = [record for partition in range(2) for record in read(kafka, topic, partition)]
    assert [record.value for record in records] == values
    assert [list(record.headers) for record in records] == headers


def test_what_kafka_refuses_fails_every_later_checkpoint(kafka):
    """An output that can never be written raises in `acked`, now and for every later mark."""
    topic = new_topic(kafka, **{"max.message.bytes": "1000"})

    async def scenario() -> None:
        sender = await started(kafka)
        refused = await sender.send(topic, None, b"x" * 3_000)
        mark = sender.mark()
        with pytest.raises(UndeliveredError, match=topic):
            await sender.acked(mark)
        assert refused.exception() is not None
        with pytest.raises(UndeliveredError):
            await sender.acked(sender.mark())
        with pytest.raises(UndeliveredError):
            sender.send_batch(topic, 0, batch([b"after"]))
        await sender.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize("busy", [False, True])
def test_nothing_is_written_after_a_batch_that_failed(kafka, busy):
    """What waits behind a refused batch fails with it, also while other partitions keep the sender busy."""
    topic = new_topic(kafka, 2, **{"max.message.bytes": "1000"})

    async def scenario() -> None:
        sender = await started(kafka)
        await sender.partitions(topic)
        if busy:
            sender.send_batch(topic, 1, batch([b"other"]))
        first = sender.send_batch(topic, 0, batch([b"x" * 3_000]))
        second = sender.send_batch(topic, 0, batch([b"later"]))
        with pytest.raises(UndeliveredError, match=topic):
            await sender.acked(sender.mark())
        await asyncio.wait([first, second], timeout=10)
        assert first.exception() is not None
        assert second.exception() is not None
        await sender.stop()

    asyncio.run(scenario())
    assert read(kafka, topic, 0) == []


def test_an_unknown_topic_or_partition_is_named(kafka):
    """A batch for a partition that does not exist is refused when it is handed over."""
    topic = new_topic(kafka)

    async def scenario() -> None:
        sender = await started(kafka)
        with pytest.raises(LookupError, match="not known"):
            sender.send_batch(topic, 0, batch([b"too early"]))
        await sender.partitions(topic)
        with pytest.raises(LookupError, match=r"\[1\]"):
            sender.send_batch(topic, 1, batch([b"nowhere"]))
        await sender.stop()

    asyncio.run(scenario())


def test_a_broker_that_comes_back_gets_everything_in_order(mortal_kafka):
    """Killed with batches in flight and started again: none is missing, and first appearances are in order."""
    kafka = mortal_kafka.address
    topic = new_topic(kafka)
    values = [b"%d" % i for i in range(400)]

    async def scenario() -> None:
        sender = await started(kafka)
        await sender.partitions(topic)
        for i, value in enumerate(values):
            sender.send_batch(topic, 0, batch([value]))
            await asyncio.sleep(0.001)
            if i == 200:
                mortal_kafka.kill()
        assert sender.outstanding > 0
        mortal_kafka.start()
        await asyncio.to_thread(mortal_kafka.wait_healthy)
        async with asyncio.timeout(90):
            await sender.acked(sender.mark())
        await sender.stop()

    asyncio.run(scenario())
    read_values = [record.value for record in read(kafka, topic)]
    assert list(dict.fromkeys(read_values)) == values


def test_a_broker_that_stays_away_fails_the_checkpoint(mortal_kafka):
    """After the delivery timeout the outputs count as undelivered, and stopping does not hang."""
    kafka = mortal_kafka.address
    topic = new_topic(kafka)

    async def scenario() -> None:
        sender = await started(kafka, delivery_timeout=2.0)
        await sender.partitions(topic)
        mortal_kafka.kill()
        sender.send_batch(topic, 0, batch([b"lost"]))
        async with asyncio.timeout(60):
            with pytest.raises(UndeliveredError, match=topic):
                await sender.acked(sender.mark())
            await sender.stop()

    try:
        asyncio.run(scenario())
    finally:
        mortal_kafka.start()
        mortal_kafka.wait_healthy()
