"""What the Kafka seam costs: events per core second, and milliseconds from send to agent.

    python -m tests.bench.seam [--events N] [--kafka HOST:PORT]

`consume` reads batches and counts; `passthrough` also re-keys every event, groups them by partition, builds
batches and sends them; both count the CPU seconds of the worker process, both of its threads, from its first
batch on. Latency is open loop: an event's clock starts when it is due, not when it is sent.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from kafka.admin import KafkaAdminClient, NewTopic

from infra.local import LocalServers
from streams.runtime.batches import Batch, BatchApp, Ownership, create_app
from streams.runtime.records import Spans, build, by_partition, partition_of
from streams.runtime.sender import Sender
from streams.runtime.worker import run

PARTITIONS = 8
VALUE_BYTES = 300
RATES = {200: 2_000, 3000: 20_000}  # events a second: how many


async def everything_from_the_start(partitions: set[Any]) -> dict[Any, int]:
    return dict.fromkeys(partitions, -1)


class Worker:
    """Counts events in, and when all have come prints what they cost and stops."""

    def __init__(self, mode: str, kafka: str, topic: str, events: int) -> None:
        self.mode, self.kafka, self.events = mode, kafka, events
        self.app: BatchApp = create_app(f"{topic}.{mode}", kafka, Ownership(everything_from_the_start))
        self.app.on_batch(topic, "bench")(self.on_batch)
        self.sender = Sender(kafka)
        self.seen = self.batches = self.checkpoint = 0
        self.latencies: list[np.ndarray] = []

    async def on_batch(self, batch: Batch) -> None:
        if not self.seen:
            if self.mode == "passthrough":
                await self.sender.start()
                await self.sender.partitions("bench.out")
            self.cpu, self.wall = time.process_time(), time.monotonic()
        self.seen += len(batch.records)
        self.batches += 1
        if self.mode == "latency":
            due = [int(value[:20]) for value in batch.records.values()]
            self.latencies.append((time.time_ns() - np.array(due)) / 1e6)
        if self.mode == "passthrough":
            await self.pass_on(batch)
        if self.seen >= self.events:
            await self.finish()

    async def pass_on(self, batch: Batch) -> None:
        records = batch.records
        # The new key lies in the value, as the next entity of a decoded event would.
        keys = Spans(records.buffer, records.value_start + 20, np.full(len(records), 12, np.int32))
        for partition, rows in by_partition(partition_of(keys, PARTITIONS), PARTITIONS):
            self.sender.send_records("bench.out", partition, keys, records.value_spans, records.timestamps, rows)
        await self.sender.room()
        if time.monotonic() - self.checkpoint > 0.5:
            self.checkpoint = time.monotonic()
            await self.sender.acked(self.sender.mark())

    async def finish(self) -> None:
        if self.mode == "passthrough":
            await self.sender.acked(self.sender.mark())
        cpu, wall = time.process_time() - self.cpu, time.monotonic() - self.wall
        result: dict[str, Any] = {"events": self.seen, "batches": self.batches}
        if self.mode == "latency":
            p = np.percentile(np.concatenate(self.latencies), [50, 99, 99.9])
            result |= dict(zip(("p50", "p99", "p999"), p.round(2).tolist(), strict=True))
            result["cpu_share"] = round(cpu / wall, 3)
        else:
            result["events_per_core_second"] = round(self.seen / cpu)
            result["events_per_second"] = round(self.seen / wall)
        print(json.dumps(result), flush=True)
        if self.mode == "passthrough":
            await self.sender.stop()
        os.kill(os.getpid(), signal.SIGTERM)


async def fill(kafka: str, topic: str, events: int) -> None:
    sender = Sender(kafka)
    await sender.start()
    await sender.partitions(topic)
    for start in range(0, events, 3000):
        numbers = range(start, min(start + 3000, events))
        values = Spans.of([(b"%020d%012d" % (i, i * 7919 % 100_003)).ljust(VALUE_BYTES, b"x") for i in numbers])
        keys = Spans.of([b"customer%06d" % (i % 50_021) for i in numbers])
        times = np.full(len(numbers), int(time.time() * 1000))
        for partition, rows in by_partition(partition_of(keys, PARTITIONS), PARTITIONS):
            for data in build(keys, values, times, rows):
                sender.send_batch(topic, partition, data)
        await sender.room()
    await sender.acked(sender.mark())
    await sender.stop()


async def drip(kafka: str, topic: str, rate: int, events: int) -> None:
    """Send every event within a millisecond of when it is due, whatever became of those before."""
    sender = Sender(kafka)
    await sender.start()
    await sender.partitions(topic)
    start, sent = time.time_ns(), 0
    while sent < events:
        await asyncio.sleep(0.001)
        due = min((time.time_ns() - start) * rate // 1_000_000_000 + 1, events)
        for partition in range(PARTITIONS):
            numbers = [i for i in range(sent, due) if i % PARTITIONS == partition]
            if numbers:
                sender.send_batch(topic, partition, _due_batch(start, rate, numbers))
        sent = due
    await sender.acked(sender.mark())
    await sender.stop()


def _due_batch(start: int, rate: int, numbers: list[int]) -> memoryview:
    dues = [start + i * 1_000_000_000 // rate for i in numbers]
    values = Spans.of([(b"%020d" % due).ljust(VALUE_BYTES, b"x") for due in dues])
    (batch,) = build(Spans.of([b"key"] * len(dues)), values, np.array(dues) // 1_000_000)
    return batch


def measure(mode: str, kafka: str, topic: str, events: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.bench.seam", "--worker", mode, topic, str(events), "--kafka", kafka]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def result_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=300)
    if process.returncode:
        raise SystemExit(f"the worker ended with {process.returncode}")
    answer: dict[str, Any] = json.loads(out)
    return answer


@contextlib.contextmanager
def kafka_at(address: str | None) -> Iterator[str]:
    if address:
        yield address
        return
    with tempfile.TemporaryDirectory() as folder, LocalServers(Path(folder), only=("kafka",)) as servers:
        yield servers.kafka.address


def main(kafka: str, events: int) -> None:
    run_id = f"bench.{time.time_ns()}"
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    names = [run_id, *(f"{run_id}.{rate}" for rate in RATES)]
    with contextlib.suppress(Exception):
        admin.create_topics([NewTopic("bench.out", PARTITIONS, 1)])
    admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names])
    asyncio.run(fill(kafka, run_id, events))
    for mode in ("consume", "passthrough"):
        print(mode, json.dumps(result_of(measure(mode, kafka, run_id, events))), flush=True)
    for rate, count in RATES.items():
        topic = f"{run_id}.{rate}"
        worker = measure("latency", kafka, topic, count)
        time.sleep(6)  # the worker joins its group; events before that would measure its start
        asyncio.run(drip(kafka, topic, rate, count))
        print(f"latency at {rate}/s", json.dumps(result_of(worker)), flush=True)
    admin.delete_topics([*names, "bench.out"])
    admin.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--kafka")
    parser.add_argument("--worker", nargs=3, metavar=("MODE", "TOPIC", "EVENTS"))
    options = parser.parse_args()
    if options.worker:
        mode, topic, count = options.worker
        sys.exit(run(Worker(mode, options.kafka, topic, int(count)).app))
    with kafka_at(options.kafka) as address:
        main(address, options.events)
