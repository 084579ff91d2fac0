"""Batches from a real Kafka through Faust agents, in workers that are processes of their own.

The worker under test is the small program at the end of this file. It keeps what design D2 asks for in files:
per partition the values folded so far and the offset after them, replaced together.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from aiokafka.errors import OffsetOutOfRangeError
from faust.types import TP
from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

from infra.local.ports import free_port
from streams.runtime.batches import Batch, BatchApp, Fetching, Ownership, create_app
from streams.runtime.worker import run
from tests.local import within

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


@pytest.fixture
def kafka(kafka_server: str) -> str:
    return kafka_server


@pytest.fixture
def producer(kafka: str) -> Iterator[KafkaProducer]:
    producer = KafkaProducer(bootstrap_servers=kafka, linger_ms=1)
    yield producer
    producer.close()


def new_topic(kafka: str, partitions: int = 1) -> str:
    name = f"test.{uuid.uuid4().hex[:8]}"
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    admin.create_topics([NewTopic(name, partitions, 1)])
    admin.close()
    return name


class Worker:
    """A worker process; everything it writes to stderr is in `said`."""

    def __init__(self, kafka: str, folder: Path, *topics: str) -> None:
        self._log = (folder / f"{uuid.uuid4().hex}.log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, __file__, kafka, str(folder), *topics],
            stderr=self._log,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    @property
    def said(self) -> str:
        return Path(self._log.name).read_text()

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(40)


@pytest.fixture
def start(kafka: str, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    workers = []

    def start(*topics: str, at: str = kafka) -> Worker:
        workers.append(Worker(at, tmp_path, *topics))
        return workers[-1]

    yield start
    for worker in workers:
        worker.process.kill()
        worker.process.wait()


def folded(folder: Path, topic: str) -> list[str]:
    """Every value that the checkpoints of a topic hold."""
    checkpoints = [json.loads(file.read_text()) for file in folder.glob(f"{topic}-*.json")]
    return [value for checkpoint in checkpoints for value in checkpoint["values"]]


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


def test_a_worker_starts_where_its_positions_say(kafka, producer, start, tmp_path):
    """The position given is the first offset delivered; a partition without one starts at its beginning."""
    topic = new_topic(kafka, 2)
    for i in range(10):
        producer.send(topic, value=b"%d" % i, partition=i % 2)
    producer.flush()
    (tmp_path / f"{topic}-1.json").write_text(json.dumps({"next": 3, "values": ["before"]}))
    start(topic)
    assert within(40, lambda: sorted(folded(tmp_path, topic)) == ["0", "2", "4", "6", "7", "8", "9", "before"])


def test_a_first_batch_comes_within_seconds(kafka, producer, start, tmp_path):
    """A new worker of a new group is reading 3 seconds after it has been imported."""
    topic = new_topic(kafka)
    producer.send(topic, value=b"1")
    producer.flush()
    worker = start(topic)
    assert within(40, lambda: "imported" in worker.said)
    assert within(3, lambda: folded(tmp_path, topic) == ["1"])


def test_on_a_signal_what_was_folded_is_checkpointed(kafka, producer, start, tmp_path):
    """SIGTERM ends a worker with 0, after `revoking` for all that it owned."""
    topic = new_topic(kafka, 2)
    worker = start(topic)
    assert within(40, lambda: "has 2 partitions" in worker.said)
    assert worker.end(signal.SIGTERM) == 0
    assert "gives up 2 partitions" in worker.said


def test_a_stop_does_not_wait_for_a_rebalance(kafka, start, tmp_path):
    """A worker that is told to stop while its group waits for a member that hangs ends in order, and soon."""
    topic = new_topic(kafka, 4)
    hanging = start(topic)
    assert within(40, lambda: "has 4 partitions" in hanging.said)
    worker = start(topic)
    assert within(40, lambda: "has 2 partitions" in worker.said)
    hanging.process.send_signal(signal.SIGSTOP)
    start(topic)
    assert within(40, lambda: "gives up 2 partitions" in worker.said)
    began = time.monotonic()
    assert worker.end(signal.SIGTERM) == 0
    assert time.monotonic() - began < 8


def test_a_last_checkpoint_that_fails_is_a_failure(kafka, start, tmp_path):
    """If `revoking` raises, a worker that was asked to stop still stops, with 1 and the reason."""
    worker = start(new_topic(kafka))
    assert within(40, lambda: "has 1 partitions" in worker.said)
    (tmp_path / "refuse").touch()
    assert worker.end(signal.SIGTERM) == 1
    assert "PermissionError: not the owner" in worker.said


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


def test_an_agent_that_raises_ends_the_worker(kafka, producer, start, tmp_path):
    """The reason is on stderr, the exit code is not 0, and nothing of the batch is checkpointed."""
    topic = new_topic(kafka)
    worker = start(topic)
    producer.send(topic, value=b"fine").get()
    assert within(40, lambda: folded(tmp_path, topic) == ["fine"])
    producer.send(topic, value=b"boom").get()
    assert worker.process.wait(40) == 1
    assert "ends" in worker.said
    assert worker.said.endswith("ValueError: boom\n")
    assert "gives up" not in worker.said
    assert folded(tmp_path, topic) == ["fine"]


def test_positions_that_cannot_be_had_end_the_worker(kafka, start, tmp_path):
    """A hook that raises is no reason to start at some other offset."""
    topic = new_topic(kafka)
    (tmp_path / f"{topic}-0.json").write_text("{")
    worker = start(topic)
    assert worker.process.wait(30) == 1
    assert "JSONDecodeError" in worker.said


@pytest.mark.parametrize("missing", ["server", "topic"])
def test_a_missing_server_or_topic_is_one_clear_line(kafka, start, missing):
    """Without Kafka, or without a topic, the worker names it and ends with 1."""
    address = f"127.0.0.1:{free_port()}" if missing == "server" else kafka
    worker = start("test.missing", at=address)
    assert worker.process.wait(40) == 1
    (line,) = [line for line in worker.said.splitlines() if "imported" not in line]
    assert ("no topic named test.missing" if missing == "topic" else f"Kafka at {address} does not answer") in line


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


@contextlib.asynccontextmanager
async def started(*apps: BatchApp) -> AsyncIterator[None]:
    """Apps of this process, inside the block and for at most a minute."""
    async with asyncio.timeout(60), contextlib.AsyncExitStack() as stack:
        for app in apps:
            stack.push_async_callback(app.stop)
            await app.start()
        yield


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
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    admin.delete_records({TopicPartition(topic, 0): 6})
    admin.close()
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
                admin = KafkaAdminClient(bootstrap_servers=kafka)
                await asyncio.to_thread(admin.delete_records, {TopicPartition(topic, 0): 9})
                admin.close()
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


@pytest.mark.parametrize("seconds", [0.5, 3600.0])
def test_a_session_that_kafka_does_not_allow_is_one_clear_line(kafka, seconds):
    """The worker ends and names the setting; it would be no member for ever, and look alive."""
    topic = new_topic(kafka)

    async def scenario() -> BaseException | None:
        app = create_app(f"group.{topic}", kafka, Ownership(nowhere), session_timeout=seconds, rebalance_timeout=1)
        app.on_batch(topic, "reading")(ignored)
        async with started(app):
            await asyncio.wait_for(app.wait_until_stopped(), 20)
            return app.crash_reason

    assert str(asyncio.run(scenario())).startswith("HEADRACE_SESSION_SECONDS: Kafka at ")


async def nowhere(_: set[TP]) -> dict[TP, int]:
    return {}


async def ignored(_: Batch) -> None:
    return


# The worker under test


def worker(kafka: str, folder: Path, *topics: str) -> int:
    say("imported")
    states: dict[TP, dict[str, list[str] | int]] = {}

    def file(tp: TP) -> Path:
        return folder / f"{tp.topic}-{tp.partition}.json"

    def checkpoint(partitions: set[TP]) -> None:
        for tp in partitions & states.keys():
            new = file(tp).with_suffix(f".{os.getpid()}")
            new.write_text(json.dumps(states[tp]))
            new.replace(file(tp))

    async def positions(partitions: set[TP]) -> dict[TP, int]:
        for tp in partitions:
            states[tp] = {"next": -1, "values": []}
            with contextlib.suppress(FileNotFoundError):
                states[tp] = json.loads(file(tp).read_text())
        return {tp: states[tp]["next"] for tp in partitions}

    async def assigned(partitions: set[TP]) -> None:
        say(f"has {len(partitions)} partitions")

    async def revoking(partitions: set[TP]) -> None:
        if (folder / "refuse").exists():
            raise PermissionError("not the owner")
        checkpoint(partitions)
        states.clear()
        say(f"gives up {len(partitions)} partitions")

    async def on_batch(batch: Batch) -> None:
        state = states[batch.tp]
        values = []
        for value in batch.records.values():
            if value == b"boom":
                raise ValueError("boom")
            values.append(value.decode())
            await asyncio.sleep(0)  # as a fold that waits for its state would
        assert batch.next_offset == len(values) + max(state["next"], 0), "a batch is missing or stale"
        state["values"] += values
        state["next"] = batch.next_offset

    app = create_app(
        f"group.{topics[0]}", kafka, Ownership(positions, revoking, assigned), session_timeout=6, rebalance_timeout=5
    )
    for topic in topics:
        app.on_batch(topic, topic)(on_batch)

    @app.timer(0.2)
    async def now_and_then() -> None:
        checkpoint(set(states))

    return run(app)


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(worker(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))
