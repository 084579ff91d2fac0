"""Event → score: from the moment an event was due at the producer to the moment a consumer holds its score.

Both ends read the same clock. Counting from when the event was *due*, not sent, keeps a stall of any part in the
figures (no coordinated omission). The first `WARMUP_SECONDS` are thrown away.
"""

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from numpy.typing import NDArray

from tests.bench.openloop import schedule
from tests.bench.throughput import Flow
from tests.bench.worker import ROOT, BenchError, Worker
from tests.bench.workload import index_of

WARMUP_SECONDS, MEASURED_SECONDS = 5.0, 20.0
LEAD_SECONDS = 4.0  # the producer imports and makes its events in this time
GRACE_SECONDS = 20.0


class ScoreId(msgspec.Struct):
    """The part of a score that is needed here."""

    event_id: str


@dataclass(frozen=True)
class Latency:
    """Percentiles in ms over `samples` events at `rate` events/s; `producer_late_ms` is part of them."""

    rate: float
    samples: int
    p50: float
    p99: float
    p999: float
    max: float
    worker_cpu_share: float
    producer_late_ms: dict[str, float]

    def figures(self) -> dict[str, Any]:
        """Return them by the names of bench.json."""
        named = asdict(self)
        return {"rate_events_per_second": named.pop("rate"), **named}


def measure(worker: Worker, flow: Flow, rate: float) -> Latency:
    """Return the latencies of a running worker at `rate` events/s; raises BenchError for scores that stay out."""
    return asyncio.run(_measure(worker, flow, rate))


async def _measure(worker: Worker, flow: Flow, rate: float) -> Latency:
    seconds = WARMUP_SECONDS + MEASURED_SECONDS
    due = schedule(rate, seconds)
    partitions = [TopicPartition(flow.results, partition) for partition in range(flow.partitions)]
    async with AIOKafkaConsumer(bootstrap_servers=flow.kafka, auto_offset_reset="latest") as consumer:
        consumer.assign(partitions)
        await consumer.seek_to_end()
        for partition in partitions:
            await consumer.position(partition)
        begin = time.time() + LEAD_SECONDS
        producer = await _start_producer(flow, rate, seconds, begin)
        cpu = worker.cpu_seconds()
        try:
            seen = await _sink(consumer, due.size, begin + seconds + GRACE_SECONDS)
            output, _ = await producer.communicate()
        finally:
            if producer.returncode is None:
                producer.kill()
                await producer.wait()
    worker.check()
    cpu = worker.cpu_seconds() - cpu
    if producer.returncode:
        raise BenchError(f"{worker.name}: the open-loop producer ended with exit code {producer.returncode}")
    measured = due >= WARMUP_SECONDS
    latency = ((seen - begin - due) * 1000)[measured]
    if missing := int(np.isnan(seen).sum()):
        raise BenchError(f"{worker.name}: {missing} of {due.size} scores missing at {rate:.0f} events/s")
    p50, p99, p999 = np.percentile(latency, [50, 99, 99.9]).tolist()
    return Latency(rate, latency.size, p50, p99, p999, float(latency.max()), cpu / seconds, json.loads(output))


async def _start_producer(flow: Flow, rate: float, seconds: float, begin: float) -> asyncio.subprocess.Process:
    arguments = (flow.kafka, flow.events, flow.partitions, rate, seconds, begin)
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.openloop",
        *map(str, arguments),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )


async def _sink(consumer: AIOKafkaConsumer, count: int, deadline: float) -> NDArray[np.float64]:
    """Return when each event's score came in (seconds since the epoch), NaN for those that did not."""
    seen = np.full(count, np.nan)
    event_id = msgspec.json.Decoder(ScoreId).decode
    left = count
    while left > 0 and time.time() < deadline:
        fetched = await consumer.getmany(timeout_ms=200)
        now = time.time()
        for records in fetched.values():
            for record in records:
                seen[index_of(event_id(record.value).event_id)] = now
            left -= len(records)
    return seen
