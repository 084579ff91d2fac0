"""`python -m tests.bench [PART …]`: measure throughput, latency and their limits, into build/bench.json."""

import argparse
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from infra.local import LocalServerError, LocalServers
from infra.processes import ROOT, ProcessError
from streams.runtime.topics import KafkaUnavailable
from tests.bench import latency, report, throughput
from tests.bench.feed import BATCH_BYTES
from tests.bench.parts import COMMANDS, EVENTS, MIDDLE, PARTITIONS, Bench
from tests.bench.report import say
from tests.bench.throughput import Throughput
from tests.bench.worker import BenchError
from tests.bench.workload import CUSTOMERS, TERMINALS, transactions

OUTPUT = ROOT / "build" / "bench.json"
FIGURES = "capacity_events_per_second", "latency_ms", "passthrough_latency_ms", "bytes_per_entity"
LEAST_SHADOWED = 2 / 3
"""Of the throughput of a champion alone, what must be left with two challengers in its shadow."""


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; the exit code is 1 where something was not measured, or where shadows cost too much."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(COMMANDS)} (default: all)")
    parts = parser.parse_args(arguments).parts or list(COMMANDS)
    if unknown := [part for part in parts if part not in COMMANDS]:
        parser.error(f"unknown part {', '.join(unknown)}: choose from {', '.join(COMMANDS)}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begin = time.monotonic()
    try:
        figures = measure(parts)
    except (BenchError, ProcessError, LocalServerError, KafkaUnavailable, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    report.write(OUTPUT, figures)
    print(f"\n{report.table(figures)}\n\n{OUTPUT.relative_to(ROOT)} after {time.monotonic() - begin:.0f} s")
    ratio = figures["shadows_ratio"]
    if ratio is not None and ratio < LEAST_SHADOWED:
        print(f"error: with shadows {ratio:.2f} of the throughput, less than {LEAST_SHADOWED:.2f}", file=sys.stderr)
        return 1
    return 0


def measure(parts: list[str]) -> dict[str, Any]:
    """Measure the parts on servers of their own; return what goes into bench.json."""
    machine = report.machine()
    logs = OUTPUT.parent / "bench"
    logs.mkdir(parents=True, exist_ok=True)
    say("events", f"making {EVENTS:,} transactions of {CUSTOMERS:,} customers at {TERMINALS:,} terminals")
    events = transactions(EVENTS)
    with (
        tempfile.TemporaryDirectory(prefix="headrace-bench-") as data,
        LocalServers(Path(data), only=("kafka", "valkey"), progress=True, lasting=True) as servers,
    ):
        say("servers", f"Kafka on {servers.kafka.address}, Valkey on {servers.valkey.address}")
        figures = measure_parts(Bench(servers, logs, events), parts)
    return figures | {"machine": machine, "parameters": parameters()}


def measure_parts(bench: Bench, parts: list[str]) -> dict[str, Any]:
    """Return the figures of the parts; those of the others are None."""
    drained: dict[str, Throughput] = {}
    figures: dict[str, Any] = dict.fromkeys(FIGURES)
    rate: float | None = None
    if "plain" in parts:
        drained["plain"] = bench.plain()
    if "pipeline" in parts:
        drained["pipeline"], capacity, delays, states = bench.pipeline()
        figures |= {"capacity_events_per_second": capacity, "latency_ms": delays.figures()}
        figures |= {"bytes_per_entity": states.bytes_per_entity, "entities": asdict(states)}
        rate = delays.rate
    if "passthrough" in parts:
        drained["passthrough"], least = bench.passthrough(rate)
        figures["passthrough_latency_ms"] = least and least.figures()
    if "shadows" in parts:
        drained["pipeline_alone"], drained["pipeline_with_shadows"] = bench.shadows()
    rates = {name: taken.per_core_second for name, taken in drained.items()}
    names = ("pipeline", "pipeline_with_shadows", "plain", "passthrough")
    headline = {f"{name}_events_per_core_second": rates.get(name) for name in names}
    headline["ratio"] = _ratio(rates, "pipeline", "plain")
    headline["shadows_ratio"] = _ratio(rates, "pipeline_with_shadows", "pipeline_alone")
    return headline | figures | {"drained": {name: asdict(one) for name, one in drained.items()}}


def _ratio(rates: dict[str, float], of: str, to: str) -> float | None:
    return rates[of] / rates[to] if {of, to} <= rates.keys() else None


def parameters() -> dict[str, Any]:
    """Return how it was measured."""
    return {
        "commands": {name: ["python", "-m", *command] for name, command in COMMANDS.items()},
        "method": " ".join((throughput.__doc__ or "").split()),
        "latency_method": " ".join((latency.__doc__ or "").split()),
        "partitions": PARTITIONS,
        "events": EVENTS,
        "warmup_events": MIDDLE,
        "customers": CUSTOMERS,
        "terminals": TERMINALS,
        "producer_batch_bytes": BATCH_BYTES,
        "latency_rate": "a quarter of the events/s that come out while more are sent, with everything on this machine",
    }


if __name__ == "__main__":
    sys.exit(main())
