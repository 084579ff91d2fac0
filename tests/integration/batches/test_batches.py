"""Batches from a real Kafka through Faust agents, in workers that are processes of their own."""

import asyncio
import signal
import time
from collections.abc import Callable

import pytest
from faust.types import TP
from kafka import KafkaProducer

from streams.runtime.batches import Batch, Fetching, Ownership, create_app
from tests.integration.batches.worker import folded
from tests.local import new_topic, within

pytestmark = pytest.mark.integration


def test_a_killed_worker_and_rebalances_lose_and_repeat_nothing(kafka, producer, start, tmp_path):
    """Workers come, one is killed in mid-stream, another leaves: every event is folded exactly once."""
    topic, other = new_topic(kafka, 6), new_topic(kafka, 3)
    sent = 0

    def send_until(done: Callable[[], bool], seconds: float = 30) -> None:
        nonlocal sent
        deadline = time.monotonic() + seconds
        while not done() and time.monotonic() < deadline:
            for _ in range(100):
                producer.send(topic, key=b"%d" % sent, value=b"%d" % sent)
                producer.send(other, key=b"%d" % sent, value=b"%d" % sent)
                sent += 1
            time.sleep(0.02)
        assert done()

    def some_more() -> Callable[[], bool]:
        known = len(folded(tmp_path, topic)) + 1000
        return lambda: len(folded(tmp_path, topic)) > known

    first = start(topic, other)
    send_until(some_more())
    second = start(topic, other)
    send_until(lambda: "has 5 partitions" in second.said or "has 4 partitions" in second.said)
    send_until(some_more())
    first.end(signal.SIGKILL)
    third = start(topic, other)
    send_until(lambda: "has 9 partitions" in second.said or "partitions" in third.said)
    send_until(some_more())
    assert second.end(signal.SIGTERM) == 0
    send_until(some_more())
    producer.flush()
    assert within(40, lambda: len(folded(tmp_path, topic)) + len(folded(tmp_path, other)) >= 2 * sent)
    assert third.end(signal.SIGTERM) == 0
    expected = sorted(map(str, range(sent)))
    assert sorted(folded(tmp_path, topic)) == expected
    assert sorted(folded(tmp_path, other)) == expected


def test_a_first_batch_comes_within_seconds(kafka, producer, start, tmp_path):
    """A new worker of a new group is reading 3 seconds after it has been imported."""
    topic = new_topic(kafka)
    producer.send(topic, value=b"1")
    producer.flush()
    worker = start(topic)
    assert within(40, lambda: "imported" in worker.said)
    assert within(3, lambda: folded(tmp_path, topic) == ["1"])


def test_a_broker_that_comes_back_is_read_on(mortal_kafka, start, tmp_path):
    """A broker killed and started again interrupts a worker but does not end it, nor lose or repeat an event."""
    kafka = mortal_kafka.address
    topic = new_topic(kafka, 2)
    worker = start(topic, at=kafka)
    for i in range(2):
        producer = KafkaProducer(bootstrap_servers=kafka)
        for j in range(100):
            producer.send(topic, value=b"%d" % (100 * i + j), partition=j % 2)
        producer.close()
        assert within(60, lambda n=100 * (i + 1): len(folded(tmp_path, topic)) == n)
        mortal_kafka.kill()
        mortal_kafka.start()
        mortal_kafka.wait_healthy()
    assert sorted(map(int, folded(tmp_path, topic))) == list(range(200))
    assert worker.end(signal.SIGTERM) == 0


def test_compressed_batches_and_headers_from_kafka_python(kafka, start, tmp_path):
    """gzip, as kafka-python producers may write it, arrives whole."""
    topic = new_topic(kafka)
    producer = KafkaProducer(bootstrap_servers=kafka, compression_type="gzip", linger_ms=50)
    for i in range(500):
        producer.send(topic, value=b"%d" % i, headers=[("h", b"v")])
    producer.close()
    start(topic)
    assert within(40, lambda: folded(tmp_path, topic) == [str(i) for i in range(500)])


def test_a_paused_partition_waits_while_others_go_on(kafka, producer):
    """What is paused is not delivered until it is resumed; then nothing of it is missing."""
    topic = new_topic(kafka, 2)
    seen: list[tuple[int, bytes | None]] = []

    async def positions(partitions: set[TP]) -> dict[TP, int]:
        app.pause({TP(topic, 0)} & partitions)
        return {}

    async def until(truth: Callable[[], bool]) -> None:
        async with asyncio.timeout(40):
            while not truth():  # noqa: ASYNC110 (what is waited for has no event)
                await asyncio.sleep(0.01)

    async def scenario() -> None:
        async def on_batch(batch: Batch) -> None:
            seen.extend((batch.partition, value) for value in batch.records.values())

        app.on_batch(topic, "pausing")(on_batch)
        await app.start()
        try:
            for i in range(50):
                producer.send(topic, value=b"%d" % i, partition=i % 2)
                producer.flush()
                await asyncio.sleep(0.005)
            await until(lambda: len(seen) == 25)
            assert {partition for partition, _ in seen} == {1}
            await until(lambda: app.lag()[TP(topic, 1)] == 0)
            app.resume({TP(topic, 0)})
            await until(lambda: len(seen) == 50)
            assert [value for partition, value in seen if not partition] == [b"%d" % i for i in range(0, 50, 2)]
            await app.commit_positions({TP(topic, 0): 25})
        finally:
            await app.stop()

    app = create_app(f"group.{topic}", kafka, Ownership(positions), Fetching(max_partition_bytes=256))
    asyncio.run(scenario())
