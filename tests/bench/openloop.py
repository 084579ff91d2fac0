"""An open-loop producer in a process of its own: it sends by the clock, whatever the pipeline does.

`python -m tests.bench.openloop KAFKA TOPIC PARTITIONS TURN RATE SECONDS BEGIN`: Poisson arrivals at RATE events/s,
from BEGIN (seconds since the epoch) on; their event times are later than those of the TURN before. The last line of its
output is how late its sends were, in ms (p50, p99, max).

All requests are written before the clock starts, as producers elsewhere would take nothing from the processor that is
measured; they wait for no answer, but each must be one without an error.
"""

import json
import socket
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np
from aiokafka.protocol.produce import ProduceRequest, ProduceRequest_v7, ProduceResponse_v7
from numpy.typing import NDArray

from streams.runtime.partitioner import by_partition
from streams.runtime.records import Spans, build
from tests.bench import wire
from tests.bench.workload import START_MS, Workload, transactions

SEED = 7
TICK_SECONDS = 0.002
TURN_MS = 90 * 86_400_000  # longer than the events of the throughput parts last, or those of a turn


def schedule(rate: float, seconds: float) -> NDArray[np.float64]:
    """Return when each event is due, in seconds after the beginning; the same arguments give the same times."""
    rng = np.random.default_rng(SEED)
    due: NDArray[np.float64] = np.cumsum(rng.exponential(1.0 / rate, round(rate * seconds)))
    return due


def ticks(due: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return when something is sent, whenever anything has come due, and up to which event."""
    tick = np.ceil(due / TICK_SECONDS).astype(np.int64)
    last = np.flatnonzero(np.diff(tick, append=-1))
    return tick[last] * TICK_SECONDS, last + 1


def requests(
    topic: str, partitions: int, events: Workload, times: Sequence[float], ends: Sequence[int]
) -> Iterator[bytes]:
    """Yield the bytes of one produce request for each of `times` (seconds since the epoch): the events up to `ends`."""
    keys, values = Spans.of(events.keys), Spans.of(events.values)
    partition = np.array(events.partition(partitions), np.int32)
    at = 0
    for number, (moment, end) in enumerate(zip(times, ends, strict=True)):
        stamps = np.full(end - at, int(moment * 1000), np.int64)
        some_keys, some_values = keys.take(slice(at, end)), values.take(slice(at, end))
        batches = [
            (target, batch)
            for target, rows in by_partition(partition[at:end], partitions)
            for batch in build(some_keys, some_values, stamps, rows)
        ]
        asked = ProduceRequest(
            transactional_id=None, required_acks=-1, timeout=int(wire.ANSWER_SECONDS * 1000), topics=[(topic, batches)]
        ).build(ProduceRequest_v7)
        yield wire.frame(asked, number)
        at = end


def play(broker: str, frames: Sequence[bytes], times: Sequence[float]) -> list[float]:
    """Send each request at its time (seconds since the epoch), or as soon after as it can be; return when each was.

    One broker leads all partitions. Raises OSError where it ends the connection, does not answer or refuses.
    """
    sent, answers = [], bytearray()
    with wire.connect(broker) as connection:
        connection.settimeout(None)  # with one, `_arrived` would wait
        for frame, moment in zip(frames, times, strict=True):
            time.sleep(max(0.0, moment - time.time()))
            sent.append(time.time())
            connection.sendall(frame)
            answers += _arrived(connection)
        connection.settimeout(wire.ANSWER_SECONDS)
        for _ in frames:
            _check(wire.answer(connection, answers))
    return sent


def _arrived(connection: socket.socket) -> bytes:
    """Return what is there of the answers, without waiting."""
    try:
        return connection.recv(1 << 16, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return b""


def _check(answer: bytes) -> None:
    """Raise OSError of an answer with an error."""
    for _, partitions in ProduceResponse_v7.decode(answer).topics:
        for partition, error, *_ in partitions:
            if error:
                raise OSError(f"partition {partition}: the broker has refused events with error {error}")


def main(arguments: list[str]) -> None:
    """Produce as the arguments say."""
    kafka, topic, partitions, turn, rate, seconds, begin = arguments
    due = schedule(float(rate), float(seconds))
    events = transactions(due.size, seed=SEED, start_ms=START_MS + int(turn) * TURN_MS)
    after, ends = ticks(due)
    times = (after + float(begin)).tolist()
    sent = play(kafka, list(requests(topic, int(partitions), events, times, ends.tolist())), times)
    late = (np.repeat(sent, np.diff(ends, prepend=0)) - due - float(begin)) * 1000
    p50, p99 = np.percentile(late, [50, 99]).tolist()
    print(json.dumps({"p50": p50, "p99": p99, "max": float(late.max())}))


if __name__ == "__main__":
    main(sys.argv[1:])
