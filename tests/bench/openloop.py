"""An open-loop producer in a process of its own: it sends by the clock, whatever the pipeline does.

`python -m tests.bench.openloop KAFKA TOPIC PARTITIONS TURN RATE SECONDS BEGIN`: Poisson arrivals at RATE events/s,
from BEGIN (seconds since the epoch) on; their event times are later than those of the TURN before. The last line of its
output is how late its sends were, in ms (p50, p99, max).
"""

import asyncio
import json
import sys
import time

import numpy as np
import uvloop
from numpy.typing import NDArray

from streams.runtime.records import Spans, by_partition
from streams.runtime.sender import Sender
from tests.bench.workload import START_MS, Workload, transactions

SEED = 7
TICK_SECONDS = 0.002
TURN_MS = 90 * 86_400_000  # longer than the events of the throughput parts last, or those of a turn


def schedule(rate: float, seconds: float) -> NDArray[np.float64]:
    """Return when each event is due, in seconds after the beginning; the same arguments give the same times."""
    rng = np.random.default_rng(SEED)
    due: NDArray[np.float64] = np.cumsum(rng.exponential(1.0 / rate, round(rate * seconds)))
    return due


async def produce(
    kafka: str, topic: str, partitions: int, events: Workload, due: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Send every event when it is due (seconds since the epoch); return how late each was, in seconds.

    It sends through the project's own batches: a heavier producer would take the processor from what is measured.
    """
    sent = np.empty(len(events))
    keys, values = Spans.of(events.keys), Spans.of(events.values)
    partition = np.array(events.partition(partitions), np.int32)
    sender = Sender(kafka)
    await sender.start()
    await sender.partitions(topic)
    at = 0
    while at < len(events):
        now = time.time()
        end = int(np.searchsorted(due, now, side="right"))
        for target, rows in by_partition(partition[at:end], partitions):
            times = np.full(rows.size, int(now * 1000), np.int64)
            sender.send_records(topic, target, keys.take(at + rows), values.take(at + rows), times)
        sent[at:end] = now
        at = end
        await asyncio.sleep(TICK_SECONDS)
    await sender.acked(sender.mark())
    await sender.stop()
    lateness: NDArray[np.float64] = sent - due
    return lateness


def main(arguments: list[str]) -> None:
    """Produce as the arguments say."""
    kafka, topic, partitions, turn, rate, seconds, begin = arguments
    due = schedule(float(rate), float(seconds))
    events = transactions(due.size, seed=SEED, start_ms=START_MS + int(turn) * TURN_MS)
    late = uvloop.run(produce(kafka, topic, int(partitions), events, due + float(begin)))
    p50, p99 = np.percentile(late * 1000, [50, 99]).tolist()
    print(json.dumps({"p50": p50, "p99": p99, "max": float(late.max()) * 1000}))


if __name__ == "__main__":
    main(sys.argv[1:])
