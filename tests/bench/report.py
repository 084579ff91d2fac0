"""The figures as a table and as build/bench.json, with what they were measured on."""

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("faust-streaming", "aiokafka", "kafka-python", "redis", "river", "numpy", "numba", "msgspec")


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, load, Python and packages."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "load_1min_before": round(os.getloadavg()[0], 2),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def say(name: str, what: str) -> None:
    """Print one status line."""
    print(f"{name:<12} {what}", flush=True)


def write(path: Path, figures: Mapping[str, Any]) -> None:
    """Write the figures as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(figures, indent=2) + "\n")
    partial.replace(path)


def table(figures: Mapping[str, Any]) -> str:
    """Return the headline figures, one a line; those that were not measured are left out."""
    lines = []
    for name, value in figures.items():
        if name.endswith("latency_ms") and value is not None:
            tail = (
                f"{value['samples']:,} events at {value['rate_events_per_second']:,.0f}/s, "
                f"machine {value['machine_cpu_share']:.0%} busy, {value['machine_stolen_share']:.0%} stolen"
            )
            if (calm := value["undisturbed_p99"]) is not None:
                tail += f"; p99 {calm:.1f} of the {value['undisturbed_samples']:,} due while none was"
            shown = "  ".join(f"{p} {value[p]:.1f}" for p in ("p50", "p99", "p999"))
            lines.append(f"{name:<46} {shown}   ({tail})")
        elif isinstance(value, int | float):
            lines.append(f"{name:<46} {value:>12,.{2 if value < 100 else 1}f}")
    return "\n".join(lines)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as cpuinfo:
            names = [line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or "unknown"
