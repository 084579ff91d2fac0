"""Event → score: from the moment an event was due at the producer to the moment a consumer holds its score.

Both ends read the same clock. Counting from when the event was *due*, not sent, keeps a stall of any part in the
figures (no coordinated omission). The first `WARMUP_SECONDS` are thrown away.
"""

import json
import subprocess
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.processes import Process, Processes
from tests.bench.machine import Watch
from tests.bench.openloop import schedule
from tests.bench.sink import Sink, ends
from tests.bench.throughput import Flow
from tests.bench.worker import BenchError, Worker
from tests.bench.workload import index_of

WARMUP_SECONDS, MEASURED_SECONDS = 20.0, 20.0  # a broker compiles itself for its first half minute
LEAD_SECONDS, LEAD_EVENTS = 4.0, 40_000  # the producer imports, and makes so many events a second
FEWEST_SECONDS = 5.0  # of which a p99 is told: with one second it would be that of one pause or none
GRACE_SECONDS = 20.0
FLOOD_RATE, FLOOD_SECONDS = 50_000.0, 4.0  # more than two cores manage together
FLOOD_GRACE_SECONDS = 120.0  # a machine that is busy otherwise manages a tenth of it


@dataclass(frozen=True)
class Latency:
    """Percentiles in ms over `samples` events at `rate` events/s.

    `producer_late_ms`, how much later than due events were sent, is contained in them. `machine_cpu_share` is how
    busy all cores were with everything that ran: near 1 the figures are those of a queue for the processor.
    `machine_stolen_share` is what a host took of them for others (Linux only): while it does, everything waits.
    `undisturbed_p99` is of the `undisturbed_samples` that were due in seconds in which it took nothing, None of few.
    """

    rate: float
    samples: int
    p50: float
    p99: float
    p999: float
    max: float
    producer_late_ms: dict[str, float]
    worker_cpu_share: float
    machine_cpu_share: float
    machine_stolen_share: float
    undisturbed_samples: int
    undisturbed_p99: float | None

    def figures(self) -> dict[str, Any]:
        """Return them by the names of bench.json."""
        named = asdict(self)
        return {"rate_events_per_second": named.pop("rate"), **named}


@dataclass(frozen=True)
class _Turn:
    """When each event was due, how much later its result was seen (seconds), and what the machine did meanwhile."""

    due: NDArray[np.float64]
    delay: NDArray[np.float64]
    late: dict[str, float]
    worker: float
    busy: float
    stolen: float
    undisturbed: NDArray[np.bool_]


def capacity(worker: Worker, flow: Flow, turn: int) -> float:
    """Return how many events/s come out of a running worker while more are sent than it can take.

    Everything is on this machine: producer, broker, state store, worker and the consumer of the results. It is never
    more than `FLOOD_RATE`.
    """
    flood = _play(worker, flow, turn, FLOOD_RATE, FLOOD_SECONDS, FLOOD_GRACE_SECONDS)
    return float(flood.due.size / (flood.due + flood.delay).max())


def measure(worker: Worker, flow: Flow, turn: int, rate: float) -> Latency:
    """Return the latencies of a running worker at `rate` events/s; raises BenchError for results that stay out.

    Turns of one worker count up from 1: event times go on.
    """
    played = _play(worker, flow, turn, rate, WARMUP_SECONDS + MEASURED_SECONDS, GRACE_SECONDS)
    measured = played.due >= WARMUP_SECONDS
    delay, calm = played.delay[measured] * 1000, played.delay[measured & played.undisturbed] * 1000
    p50, p99, p999 = np.percentile(delay, [50, 99, 99.9]).tolist()
    shares = (played.worker, played.busy, played.stolen)
    calm_p99 = float(np.percentile(calm, 99)) if calm.size >= rate * FEWEST_SECONDS else None
    return Latency(rate, delay.size, p50, p99, p999, float(delay.max()), played.late, *shares, calm.size, calm_p99)


def _play(worker: Worker, flow: Flow, turn: int, rate: float, seconds: float, grace: float) -> _Turn:
    due, offsets = schedule(rate, seconds), ends(flow.kafka, flow.results, flow.partitions)
    with Processes(worker.log.parent, {}) as children, Sink(flow.kafka, flow.results, offsets) as sink:
        begin = time.time() + LEAD_SECONDS + due.size / LEAD_EVENTS
        arguments = (flow.kafka, flow.events, flow.partitions, turn, rate, seconds, begin)
        producer = children.start("producer", "tests.bench.openloop", *map(str, arguments))
        time.sleep(max(0.0, begin - time.time()))
        cpu, watch = worker.cpu_seconds(), Watch()
        seen = _seen(flow, worker, sink, watch, np.full(due.size, np.nan), begin + seconds + grace)
        share = (worker.cpu_seconds() - cpu) / (time.time() - begin)
        busy, stolen = watch.shares()
        late = _finished(producer)
    if missing := int(np.isnan(seen).sum()):
        raise BenchError(
            f"{worker.name}: {missing} of {due.size} results missing {grace:.0f} s after the last event, at "
            f"{rate:.0f} events/s on a machine {busy:.0%} busy"
        )
    return _Turn(due, seen - begin - due, late, share, busy, stolen, watch.undisturbed(begin + due))


def _finished(producer: Process) -> dict[str, float]:
    """Return what the producer says of itself at its end."""
    try:
        code: int | None = producer.popen.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        code = None
    if code != 0:
        raise BenchError(producer.epitaph())
    late: dict[str, float] = json.loads(producer.log.read_text().splitlines()[-1])
    return late


def _seen(
    flow: Flow, worker: Worker, sink: Sink, watch: Watch, seen: NDArray[np.float64], deadline: float
) -> NDArray[np.float64]:
    """Return `seen` with the time at which each new score came in (seconds since the epoch)."""
    left = seen.size
    while left > 0 and time.time() < deadline:
        try:
            taken = sink.take()
        except OSError as error:
            raise BenchError(f"{worker.name}: its results cannot be read: {error}") from None
        now = time.time()
        for records in taken:
            seen[[index_of(one) for one in flow.ids(records)]] = now
            left -= len(records)
        if not taken:
            worker.check()
        watch.look()
    return seen
