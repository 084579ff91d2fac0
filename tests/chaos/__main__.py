"""The fault campaign: `python -m tests.chaos [--cluster] [--seed N] [--minutes M] [--rate R]`.

The exit code is 1 on any difference.
"""

import argparse
import os
import secrets
import signal
import sys
import tempfile
from pathlib import Path

from infra.local import LocalServerError, LocalServers
from infra.local.cluster import LocalCluster
from infra.processes import ROOT, ProcessError
from streams.arguments import above_zero, argument
from streams.runtime.topics import KafkaUnavailable
from tests.chaos.campaign import Campaign, Plan
from tests.chaos.faults import CAMPAIGN
from tests.chaos.members import CLUSTER_CAMPAIGN
from tests.chaos.verdict import Verdict

LOGS = ROOT / "build" / "chaos"
MINUTES = 8.0  # the campaign's own length; a shorter one has the same faults closer together
QUIET_SHARE = 0.125
OPTIMISING = "-XX:TieredStopAtLevel=4"  # these servers live long enough for it; it comes after our own options


def main() -> int:
    """Carry out a campaign; the exit code is 0 if nothing differs from the oracle."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1000), help="of workload, faults and their order")
    parser.add_argument("--minutes", type=argument(above_zero), default=MINUTES)
    parser.add_argument("--rate", type=argument(above_zero), default=3_200.0, help="events a second")
    parser.add_argument("--cluster", action="store_true", help="on three brokers, three Redis masters and two workers")
    parser.add_argument("--faults", help="only these, with commas between; a wrong one names all")
    options = parser.parse_args()
    campaign = CLUSTER_CAMPAIGN if options.cluster else CAMPAIGN
    by_name = {fault.name: fault for fault in campaign}
    if unknown := {*(options.faults or "").split(",")} - {"", *by_name}:
        parser.error(f"unknown fault {', '.join(unknown)}; there are {', '.join(sorted(by_name))}")
    faults = [by_name[name] for name in options.faults.split(",")] if options.faults else campaign
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ.setdefault("_JAVA_OPTIONS", OPTIMISING)
    seconds = options.minutes * 60
    quiet = max(20.0, seconds * QUIET_SHARE)
    plan = Plan(options.seed, seconds, options.rate, faults, quiet, workers=2 if options.cluster else 1)
    print(f"seed {plan.seed}: {seconds:.0f} s at {plan.rate:,.0f} events/s, logs in {LOGS}", flush=True)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="headrace-chaos-", ignore_cleanup_errors=True) as data,
            LocalCluster(Path(data)) if options.cluster else LocalServers(Path(data), progress=True) as servers,
        ):
            verdict = Campaign(plan, servers, LOGS, lambda text: print(text, flush=True)).run()
    except (ProcessError, LocalServerError, KafkaUnavailable, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(report(verdict), flush=True)
    return 1 if verdict.differences else 0


def report(verdict: Verdict) -> str:
    """Return the table and what differs."""
    width = max(len(name) for name, _ in verdict.lines) + 2
    table = [f"{name:<{width}}{what}" for name, what in verdict.lines]
    found = [f"DIFFERENT: {one}" for one in verdict.differences] or ["no differences"]
    return "\n".join(["", *table, "", *found])


if __name__ == "__main__":
    sys.exit(main())
