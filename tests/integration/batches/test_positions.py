"""Where a worker of batches begins to read: where its positions say, however late they come, or not at all."""

import asyncio
import json

import pytest
from aiokafka.errors import OffsetOutOfRangeError
from faust.types import TP
from kafka import TopicPartition

from streams.runtime.batches import Batch, Fetching, Ownership, create_app
from tests.integration.batches.worker import folded, nowhere, started
from tests.local import forget, new_topic, within

pytestmark = pytest.mark.integration


def test_a_worker_starts_where_its_positions_say(kafka, producer, start, tmp_path):
    """The position given is the first offset delivered; a partition without one starts at its beginning."""
    topic = new_topic(kafka, 2)
    for i in range(10):
        producer.send(topic, value=b"%d" % i, partition=i % 2)
    producer.flush()
    (tmp_path / f"{topic}-1.json").write_text(json.dumps({"next": 3, "values": ["before"]}))
    start(topic)
    assert within(40, lambda: sorted(folded(tmp_path, topic)) == ["0", "2", "4", "6", "7", "8", "9", "before"])


def test_positions_that_cannot_be_had_end_the_worker(kafka, start, tmp_path):
    """A hook that raises is no reason to start at some other offset."""
    topic = new_topic(kafka)
    (tmp_path / f"{topic}-0.json").write_text("{")
    worker = start(topic)
    assert worker.process.wait(30) == 1
    assert "JSONDecodeError" in worker.said


def test_positions_may_take_longer_than_a_request(kafka, producer):
    """A store that is away for long holds a worker up, but not for ever; nothing comes before its answer."""
    topic = new_topic(kafka)
    producer.send(topic, value=b"1").get()
    events: list[str] = []

    async def scenario() -> None:
        arrived = asyncio.Event()

        async def positions(_: set[TP]) -> dict[TP, int]:
            await asyncio.sleep(2 * app.conf.broker_request_timeout)
            events.append("positions")
            return {}

        async def on_batch(_: Batch) -> None:
            events.append("batch")
            arrived.set()

        app = create_app(f"group.{topic}", kafka, Ownership(positions), session_timeout=2, rebalance_timeout=2)
        app.conf.broker_request_timeout = 2.5
        app.on_batch(topic, "slow")(on_batch)
        async with started(app):
            await arrived.wait()

    asyncio.run(scenario())
    assert events == ["positions", "batch"]


def test_a_rebalance_cancels_positions_that_are_still_awaited(kafka, producer):
    """What was not answered is neither waited for nor given up; the next generation is opened as ever."""
    topic = new_topic(kafka, 2)
    for partition in 0, 1:
        producer.send(topic, value=b"%d" % partition, partition=partition).get()
    events: list[str] = []

    async def scenario() -> None:
        asked, arrived = asyncio.Event(), [asyncio.Event(), asyncio.Event()]

        async def positions(_: set[TP]) -> dict[TP, int]:
            if not asked.is_set():
                asked.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    events.append("cancelled")
            return {}

        async def revoking(_: set[TP]) -> None:
            events.append("revoking")

        async def on_batch(batch: Batch) -> None:
            events.append("batch")
            arrived[batch.partition].set()

        ownership = Ownership(positions, revoking)
        first, second = (
            create_app(f"group.{topic}", kafka, ownership, session_timeout=6, rebalance_timeout=5) for _ in range(2)
        )
        for app in first, second:
            app.on_batch(topic, "reading")(on_batch)
        async with started(first):
            await asked.wait()
            async with started(second):
                for one in arrived:
                    await one.wait()

    asyncio.run(scenario())
    assert events[0] == "cancelled"
    assert events.index("batch") < events.index("revoking")


def test_an_offset_beyond_the_log_ends_the_worker(kafka, start, tmp_path):
    """A topic that was made anew does not fit the state that was kept: one line, exit 1."""
    topic = new_topic(kafka)
    (tmp_path / f"{topic}-0.json").write_text(json.dumps({"next": 7, "values": []}))
    worker = start(topic)
    assert worker.process.wait(40) == 1
    assert "Traceback" not in worker.said
    (line,) = [line for line in worker.said.splitlines() if "ends: " in line]
    assert f"ends: {topic}/0 ends at offset 0, but the kept state goes on at offset 7" in line


def test_what_retention_has_removed_is_left_out(kafka, producer):
    """An offset that the log no longer has is read on at its beginning."""
    topic = new_topic(kafka)
    for i in range(10):
        producer.send(topic, value=b"%d" % i).get()
    forget(kafka, {TopicPartition(topic, 0): 6})
    seen: list[bytes | None] = []

    async def scenario() -> None:
        arrived = asyncio.Event()

        async def positions(_: set[TP]) -> dict[TP, int]:
            return {TP(topic, 0): 2}

        async def on_batch(batch: Batch) -> None:
            seen.extend(batch.records.values())
            if batch.next_offset == 10:
                arrived.set()

        app = create_app(f"group.{topic}", kafka, Ownership(positions), session_timeout=6, rebalance_timeout=5)
        app.on_batch(topic, "reading")(on_batch)
        async with started(app):
            await arrived.wait()

    asyncio.run(scenario())
    assert seen == [b"6", b"7", b"8", b"9"]


def test_a_log_that_loses_what_is_to_be_read_next_ends_the_worker(kafka, producer):
    """It is not read on elsewhere in silence: from its beginning, events that are folded already would come again."""
    topic = new_topic(kafka)
    for i in range(10):
        producer.send(topic, value=b"%d" % i).get()
    seen: list[bytes | None] = []

    async def scenario() -> BaseException | None:
        async def on_batch(batch: Batch) -> None:
            if not seen:
                await asyncio.to_thread(forget, kafka, {TopicPartition(topic, 0): 9})
            seen.extend(batch.records.values())

        fetching = Fetching(max_partition_bytes=1)  # one record each
        app = create_app(f"group.{topic}", kafka, Ownership(nowhere), fetching, session_timeout=6)
        app.on_batch(topic, "reading")(on_batch)
        async with started(app):
            await asyncio.wait_for(app.wait_until_stopped(), 20)
            return app.crash_reason

    reason = asyncio.run(scenario())
    assert isinstance(reason, OffsetOutOfRangeError)
    assert topic in str(reason)
    assert b"9" not in seen
