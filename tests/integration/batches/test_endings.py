"""How a worker of batches ends: in order on a signal, and with one clear line where it cannot go on."""

import asyncio
import signal
import time

import pytest

from infra.local.ports import free_port
from streams.runtime.batches import Batch, Ownership, create_app
from tests.integration.batches.worker import folded, nowhere, started
from tests.local import new_topic, within

pytestmark = pytest.mark.integration


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


@pytest.mark.parametrize("missing", ["server", "topic"])
def test_a_missing_server_or_topic_is_one_clear_line(kafka, start, missing):
    """Without Kafka, or without a topic, the worker names it and ends with 1."""
    address = f"127.0.0.1:{free_port()}" if missing == "server" else kafka
    worker = start("test.missing", at=address)
    assert worker.process.wait(40) == 1
    (line,) = [line for line in worker.said.splitlines() if "imported" not in line]
    assert ("no topic named test.missing" if missing == "topic" else f"Kafka at {address} does not answer") in line


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


async def ignored(_: Batch) -> None:
    return
