"""A server may be away for longer than a stall takes: every process lives, says so, and then does all of its work."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer

from infra.processes import Process, Processes
from schemas.codec import encode
from streams.runtime.producer import Producer
from streams.usecases import FRAUD
from tests.engines import Engine, Server
from tests.local import created, records, within

pytestmark = pytest.mark.integration

PARTITIONS = 2
TOPICS = FRAUD.topics(PARTITIONS)
STALL_SECONDS = 5.0
PATIENCE = 60.0  # seconds
ROOT = Path(__file__).parents[2]
SETTINGS = {
    "HEADRACE_MODEL_KEY": "k" * 32,
    "HEADRACE_PARTITIONS": str(PARTITIONS),
    "HEADRACE_SESSION_SECONDS": "3",
    "HEADRACE_CHECKPOINT_SECONDS": "0.1",
    "HEADRACE_STALL_SECONDS": str(STALL_SECONDS),
}


def probe(process: Process, path: str) -> tuple[int, Any]:
    """What a process answers at /livez or /readyz: the status and the JSON."""
    assert process.metrics
    try:
        with urlopen(process.metrics.removesuffix("/metrics") + path, timeout=5) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)


def ready(process: Process) -> bool:
    """Say whether a process answers that it is; one that ends answers nothing, and its epitaph says why."""
    try:
        return process.metrics is not None and probe(process, "/readyz")[0] == 200
    except OSError:
        return False


def metric(process: Process, line: str) -> float:
    with urlopen(process.metrics or "", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(one.split()[-1]) for one in lines if one.startswith(f"headrace_{line}"))


def stays_alive_but_unready(processes: list[Process], store: str) -> None:
    """Watch processes for longer than a stall takes: alive all the time, not ready, and they say why."""
    for process in processes:
        assert within(15, lambda process=process: f"{store} is away" in probe(process, "/readyz")[1]["reasons"])  # type: ignore[misc]
    until = time.monotonic() + STALL_SECONDS + 2
    while time.monotonic() < until:
        for process in processes:
            assert process.alive, process.epitaph()
            assert probe(process, "/livez") == (200, {"alive": True, "reasons": []})
            status, content = probe(process, "/readyz")
            assert (status, content["ready"], content["stores"][store]) == (503, False, False)
            assert metric(process, f'store_up{{store="{store}"}}') == metric(process, "ready") == 0
        time.sleep(0.2)  # how often it is looked at


def payment(number: int) -> dict[str, Any]:
    ids = {"event_id": f"e{number}", "customer_id": f"c{number}", "terminal_id": f"t{number}"}
    return {**ids, "event_time": int(time.time() * 1000), "amount": 1.0}


def pay(kafka: str, first: int, count: int) -> None:
    """Send payments, each of another customer at another terminal."""
    with Producer(kafka, linger_ms=1) as producer:
        for number in range(first, first + count):
            producer.send(TOPICS.events.name, encode(payment(number)), key=f"c{number}".encode())


async def pay_in_a_transaction(kafka: str, number: int) -> None:
    """Send a payment whose log ends with what is no record."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=uuid4().hex)
    await producer.start()
    try:
        async with producer.transaction():
            await producer.send_and_wait(TOPICS.events.name, encode(payment(number)), key=f"c{number}".encode())
    finally:
        await producer.stop()


def keys(kafka: str, topic: str) -> set[bytes | None]:
    return {one.key for one in records(kafka, topic)}


def ids(count: int) -> set[bytes]:
    return {f"e{number}".encode() for number in range(count)}


@contextmanager
def started(kafka: str, folder: Path, environment: dict[str, str]) -> Iterator[Processes]:
    with created(kafka, TOPICS), Processes(folder / "logs", SETTINGS | environment) as processes:
        yield processes


def test_redis_may_be_away(kafka_server: str, engine: Engine, tmp_path: Path) -> None:
    """The worker lives and is not ready while Redis hangs; when it is back, all is scored and it is ready again.

    It goes on from another's checkpoint, so that it asks Redis for every entity.
    """
    with engine.valkey(tmp_path / "valkey") as valkey:
        environment = {"HEADRACE_KAFKA": kafka_server, "HEADRACE_REDIS": valkey.url}
        with started(kafka_server, tmp_path, environment) as processes:
            first = processes.start("first", "services.worker", "fraud")
            pay(kafka_server, 0, 50)
            asyncio.run(pay_in_a_transaction(kafka_server, 50))
            assert within(PATIENCE, lambda: keys(kafka_server, TOPICS.scores.name) == ids(51)), first.epitaph()
            processes.stop(first)
            worker = processes.start("worker", "services.worker", "fraud")
            assert within(PATIENCE, lambda: ready(worker)), worker.epitaph()
            valkey.suspend()
            try:
                pay(kafka_server, 51, 49)
                stays_alive_but_unready([worker], "redis")
            finally:
                valkey.resume()
            assert within(PATIENCE, lambda: keys(kafka_server, TOPICS.scores.name) == ids(100)), worker.epitaph()
            assert within(30, lambda: ready(worker)), probe(worker, "/readyz")
            assert metric(worker, 'store_retries_total{store="redis"}') >= 1
            warnings = [line for line in worker.log.read_text().splitlines() if " WARNING " in line]
            assert warnings
            assert all("redis is away, trying again: Redis at" in line for line in warnings)
            behind = probe(worker, "/readyz")[1]["records_behind"]
            assert len(behind) == 2 * PARTITIONS
            assert set(behind.values()) == {0}, "the end of a transaction is no record"


def test_kafka_may_be_away(mortal_kafka: Server, valkey_server: str, cassandra_server: str, tmp_path: Path) -> None:
    """Worker, history and learner live and are not ready without a broker; once it is back, each does the rest."""
    kafka = mortal_kafka.address
    environment = {
        "HEADRACE_KAFKA": kafka,
        "HEADRACE_REDIS": valkey_server.removesuffix("/0") + "/9",
        "HEADRACE_CASSANDRA": cassandra_server,
        "HEADRACE_KEYSPACE": f"k{uuid4().hex[:12]}",
    }
    with started(kafka, tmp_path, environment) as processes:
        all_ = [processes.start(name, f"services.{name}", "fraud") for name in ("worker", "history", "learner")]
        for process in all_:
            assert within(PATIENCE, lambda process=process: ready(process)), process.epitaph()  # type: ignore[misc]
        work(kafka, 0, 100)
        learner = all_[-1]
        assert within(PATIENCE, lambda: metric(learner, "examples_learnt_total") == 100), learner.epitaph()
        mortal_kafka.kill()
        try:
            stays_alive_but_unready(all_, "kafka")
        finally:
            mortal_kafka.start()
            mortal_kafka.wait_healthy()
        work(kafka, 100, 100)
        assert within(PATIENCE, lambda: metric(learner, "examples_learnt_total") == 200), learner.epitaph()
        assert keys(kafka, TOPICS.scores.name) == keys(kafka, TOPICS.examples.name) == ids(200)
        assert not records(kafka, TOPICS.dlq.name)
        for process in all_:
            assert within(30, lambda process=process: ready(process)), process.epitaph()  # type: ignore[misc]
            assert metric(process, 'store_retries_total{store="kafka"}') >= 1


def work(kafka: str, first: int, count: int) -> None:
    """Send payments and, at once, their labels."""
    pay(kafka, first, count)
    with Producer(kafka, linger_ms=1) as producer:
        for number in range(first, first + count):
            label = {"event_id": f"e{number}", "label_time": int(time.time() * 1000), "label": number % 2}
            producer.send(TOPICS.labels.name, encode(label), key=f"e{number}".encode())


STUCK = """
import asyncio, sys
from streams.app import StageWorker
from streams.process import serve

class Stuck(StageWorker):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        for agent in self._agents.values():
            agent._fold = lambda *_: asyncio.Event().wait()

sys.argv = ["worker", "fraud"]
sys.exit(serve("worker", "", Stuck))
"""


def test_a_worker_that_makes_no_progress_ends_and_is_replaced(
    kafka_server: str, valkey_server: str, tmp_path: Path
) -> None:
    """All its servers answer and it waits for ever: one line, exit code 1, and its replacement loses nothing."""
    environment = {"HEADRACE_KAFKA": kafka_server, "HEADRACE_REDIS": valkey_server.removesuffix("/0") + "/10"}
    with started(kafka_server, tmp_path, environment) as processes:
        stuck = subprocess.Popen(
            [sys.executable, "-c", STUCK],
            cwd=ROOT,
            env=processes._environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            pay(kafka_server, 0, 10)
            _, said = stuck.communicate(timeout=PATIENCE)
        finally:
            stuck.kill()
            stuck.wait()
        assert stuck.returncode == 1
        (line,) = [line for line in said.splitlines() if "ERROR" in line]
        assert "worker fraud-stages ends: fraud.transactions/" in line
        assert "has stood at offset 0 of " in line
        worker = processes.start("worker", "services.worker", "fraud")
        assert within(PATIENCE, lambda: keys(kafka_server, TOPICS.scores.name) == ids(10)), worker.epitaph()
        assert within(30, lambda: ready(worker)), probe(worker, "/readyz")
