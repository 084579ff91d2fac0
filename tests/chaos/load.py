"""The load generator: sends the workload by the clock, whatever the pipeline or Kafka does.

`python -m tests.chaos.load KAFKA PARTITIONS SEED RATE SECONDS BEGIN_MS`, until SIGTERM. The last line of its output
is how many events it has sent and how late its sends were, in seconds: a Kafka that is away makes them late, never
lost.
"""

import asyncio
import json
import logging
import signal
import sys
import time

import numpy as np

from schemas.events import WATERMARK_HEADER
from schemas.topics import Topics
from streams.runtime.partitioner import by_partition, partition_of
from streams.runtime.records import Header, Spans
from streams.runtime.sender import Sender
from streams.usecases import FRAUD
from tests.chaos.workload import NO_WATERMARK, POISON_HEADER, Kind, Workload, runs

TICK_SECONDS = 0.01


class Load:
    """One pass over a workload, through the project's own batches: they cost the least."""

    def __init__(self, sender: Sender, topics: Topics, workload: Workload) -> None:
        self._sender, self._topics, self._workload = sender, topics, workload
        self._keys = [b"c%05d" % number for number in range(workload.customers)]
        self._home = partition_of(Spans.of(self._keys), topics.events.partitions)

    async def run(self, stop: asyncio.Event) -> dict[str, float]:
        """Send everything when it is due, until told to stop; return how many events that was and how late."""
        due, kinds, index = self._workload.sends
        late = np.zeros(due.size)
        at = 0
        while at < due.size and not stop.is_set():
            now = time.time() - self._workload.begin_ms / 1000
            end = int(np.searchsorted(due, now, side="right"))
            for kind, span in runs(kinds, at, end):
                if kind is Kind.EVENT:
                    self._send_events(index[span])
                else:
                    await self._send_one(kind, int(index[span][0]))
            late[at:end] = now - due[at:end]
            at = end
            await self._sender.room()
            await asyncio.sleep(TICK_SECONDS)
        await self._sender.acked(self._sender.mark())
        events = int((kinds[:at] == Kind.EVENT).sum())
        return {"events": events, "late_p50": float(np.median(late[:at])), "late_max": float(late[:at].max())}

    def _send_events(self, index: "np.typing.NDArray[np.int64]") -> None:
        customers = self._workload.customer[index]
        keys = Spans.of([self._keys[number] for number in customers.tolist()])
        values = Spans.of(self._workload.event_values(index))
        times = np.full(index.size, int(time.time() * 1000), np.int64)
        for partition, rows in by_partition(self._home[customers], self._topics.events.partitions):
            self._sender.send_records(self._topics.events.name, partition, keys, values, times, rows)

    async def _send_one(self, kind: Kind, index: int) -> None:
        topics, (hop,) = self._topics, self._topics.hops
        match kind:
            case Kind.LABEL:
                key, value = self._workload.label(index)
                await self._sender.send(topics.labels.name, key, value)
            case Kind.POISON_EVENT:
                reason, key, poison = self._workload.poison_event(index)
                marked: list[Header] = [(WATERMARK_HEADER, b"1")] if poison == NO_WATERMARK else []
                await self._bad(topics.events.name, reason, key, poison, marked)
            case Kind.POISON_LABEL:
                await self._bad(topics.labels.name, *self._workload.poison_label(index))
            case _:
                topic = {Kind.POISON_HOP: hop, Kind.POISON_SCORE: topics.scores, Kind.POISON_EXAMPLE: topics.examples}
                await self._bad(topic[kind].name, "undecodable", b"stray", b"\x00garbage %d" % index)

    async def _bad(
        self, topic: str, reason: str, key: bytes, value: bytes | None, headers: list[Header] | None = None
    ) -> None:
        await self._sender.send(topic, key, value, [*(headers or []), (POISON_HEADER, reason.encode())])


async def produce(kafka: str, partitions: int, workload: Workload) -> dict[str, float]:
    """Send a workload; return what `Load.run` tells."""
    topics = FRAUD.topics(partitions)
    sender = Sender(kafka, "chaos-load")
    await sender.start()
    for topic in topics:
        await sender.partitions(topic.name)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print("ready", flush=True)
    told = await Load(sender, topics, workload).run(stop)
    await sender.stop()
    return told


def main(arguments: list[str]) -> None:
    """Produce as the arguments say."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # Kafka is killed on purpose
    kafka, partitions, seed, rate, seconds, begin_ms = arguments
    workload = Workload(int(seed), float(rate), float(seconds), int(begin_ms))
    print(json.dumps(asyncio.run(produce(kafka, int(partitions), workload))))


if __name__ == "__main__":
    main(sys.argv[1:])
