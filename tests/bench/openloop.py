"""An open-loop producer in a process of its own: it sends by the clock, whatever the pipeline does.

`python -m tests.bench.openloop KAFKA TOPIC PARTITIONS RATE SECONDS BEGIN`: Poisson arrivals at RATE events/s, from
BEGIN (seconds since the epoch) on. The last line of its output is how late its sends were, in ms (p50, p99, max).
"""

import asyncio
import json
import sys
import time

import numpy as np
from aiokafka import AIOKafkaProducer
from numpy.typing import NDArray

from tests.bench.workload import START_MS, Workload, transactions

SEED = 7
TICK_SECONDS = 0.001
AFTER_MS = START_MS + 90 * 86_400_000  # later than every event of the throughput parts


def schedule(rate: float, seconds: float) -> NDArray[np.float64]:
    """Return when each event is due, in seconds after the beginning; the same arguments give the same times."""
    rng = np.random.default_rng(SEED)
    due: NDArray[np.float64] = np.cumsum(rng.exponential(1.0 / rate, round(rate * seconds)))
    return due


async def produce(
    kafka: str, topic: str, partitions: int, events: Workload, due: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Send every event when it is due (seconds since the epoch); return how late each was, in seconds."""
    sent = np.empty(len(events))
    partition = events.partition(partitions)
    at = due.tolist()
    async with AIOKafkaProducer(bootstrap_servers=kafka, linger_ms=0) as producer:
        await producer.partitions_for(topic)
        i = 0
        while i < len(events):
            now = time.time()
            while i < len(events) and at[i] <= now:
                await producer.send(topic, key=events.keys[i], value=events.values[i], partition=partition[i])
                sent[i] = time.time()
                i += 1
            await asyncio.sleep(TICK_SECONDS)
        await producer.flush()
    lateness: NDArray[np.float64] = sent - due
    return lateness


def main(arguments: list[str]) -> None:
    """Produce as the arguments say."""
    kafka, topic, partitions, rate, seconds, begin = arguments
    due = schedule(float(rate), float(seconds))
    events = transactions(due.size, seed=SEED, start_ms=AFTER_MS)
    late = asyncio.run(produce(kafka, topic, int(partitions), events, due + float(begin)))
    p50, p99 = np.percentile(late * 1000, [50, 99]).tolist()
    print(json.dumps({"p50": p50, "p99": p99, "max": float(late.max()) * 1000}))


if __name__ == "__main__":
    main(sys.argv[1:])
