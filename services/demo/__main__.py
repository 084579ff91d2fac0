"""`python -m services.demo fraud`: real servers, the whole pipeline and live payments, on this machine."""

import argparse
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import NoReturn

from infra.local import LocalServerError, LocalServers
from infra.processes import ROOT, Process, ProcessError, Processes
from schemas.topics import Topics
from services.demo.launch import READY_SECONDS, Launch
from services.demo.report import line, summary
from services.demo.watch import NOTHING, Reading, scrape
from streams.arguments import above_zero, argument, rate
from streams.console import ends_quietly
from streams.runtime.producer import stop_flag
from streams.runtime.topics import KafkaUnavailable, record_counts
from streams.settings import Settings, SettingsError
from streams.usecases import USECASES

FOLDER = ROOT / ".headrace"
LABEL_DELAY, HORIZON_SECONDS = "5s", 6
"""How late a fraud is known, and after how long a payment of which nobody has complained is taken for legitimate."""

DRAIN_SECONDS = 15.0
"""How long the pipeline may stand still at the end before what is missing counts as lost."""


class DemoError(Exception):
    """The demo ran and something was not as it must be."""


@ends_quietly
def main(arguments: list[str] | None = None) -> int:
    """Run the demo; the exit code is 0 if everything sent was scored."""
    options = _parser().parse_args(arguments)
    try:
        settings = Settings.read(os.environ)
        for number in (signal.SIGINT, signal.SIGTERM):  # a shell has its background jobs ignore the first
            signal.signal(number, _interrupt)
        FOLDER.mkdir(exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="demo-", dir=FOLDER))
        try:
            _demo(options, settings, folder)
        finally:
            _keep_logs_only(folder)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `| head`: everything is stopped
        raise
    except (LocalServerError, ProcessError, KafkaUnavailable, DemoError, OSError, KeyboardInterrupt) as error:
        if _interrupted(error):
            print("stopped while starting", file=sys.stderr)
            return 130
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _interrupted(error: BaseException | None) -> bool:
    """Say whether somebody ended it: what is ended in the middle may complain."""
    while error and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _demo(options: argparse.Namespace, settings: Settings, folder: Path) -> None:
    topics = USECASES[options.usecase].deployed(settings.deployment, settings.publish).topics(settings.partitions)
    servers = LocalServers(folder, progress=True)
    environment = {
        **servers.environment(),
        "HEADRACE_METRICS_PORT": "0",
        "HEADRACE_LABEL_HORIZON_SECONDS": str(HORIZON_SECONDS),
        "HEADRACE_MODEL_KEY": secrets.token_hex(32),
    }
    with Processes(folder / "logs", environment) as processes:
        _say(f"starting the servers (logs in {folder / 'logs'})")
        launch = Launch(options.usecase, topics, servers, processes, _say)
        try:
            launch.run()
            _say(f"{', '.join(process.name for process in processes.all)} ready")
            simulator = _start_simulator(options, processes)
            _run(options.duration, topics, servers, processes, simulator)
        finally:
            # From here on a second Ctrl-C would only leave processes behind.
            stop_flag()
            with suppress(BrokenPipeError):
                _say("stopping")
            processes.stop()
            for server in servers.servers:
                server.kill()  # its data goes with it, so there is nothing to end in good order
            servers.stop()


def _start_simulator(options: argparse.Namespace, processes: Processes) -> Process:
    how = ("--rate", str(options.rate), "--label-delay", LABEL_DELAY, "--labels", "frauds")
    simulator = processes.start("simulator", "services.simulator", options.usecase, *how)
    processes.wait_ready(READY_SECONDS)
    _say(
        f"simulator ready: {options.rate:g} events/s, frauds known {LABEL_DELAY} late, the rest assumed "
        f"legitimate after {HORIZON_SECONDS}s; Ctrl-C ends"
    )
    return simulator


def _run(seconds: float, topics: Topics, servers: LocalServers, processes: Processes, simulator: Process) -> None:
    """Watch for so many seconds, then end the simulator, let the pipeline finish, and sum up."""
    stop, begin = stop_flag(), time.monotonic()
    before, before_at = NOTHING, begin
    while not stop.wait(max(0.0, min(before_at + 1, begin + seconds) - time.monotonic())):
        _check(servers, processes)
        now, now_at = _read(processes), time.monotonic()
        print(line(now, before, now_at - begin, now_at - before_at), flush=True)
        before, before_at = now, now_at
        if now_at >= begin + seconds:
            break
    processes.stop(simulator)
    counts = _drained(servers, topics, processes)
    last = _read(processes)
    print(summary(last, counts, time.monotonic() - begin), flush=True)
    if not counts["scored"]:
        raise DemoError("nothing was scored")
    if counts["scored"] < counts["sent"] or counts["dead"]:
        raise DemoError("not every event was scored")


def _drained(servers: LocalServers, topics: Topics, processes: Processes) -> dict[str, int]:
    """Return how many events were sent, scored and put aside, once the pipeline has caught up or stands still."""
    done, done_at = -1, 0.0
    while True:
        _check(servers, processes)
        found = record_counts(servers.kafka.address, [topics.events, topics.scores, topics.dlq])
        sent, scored, dead = (found[topic.name] for topic in (topics.events, topics.scores, topics.dlq))
        if scored > done:
            done, done_at = scored, time.monotonic()
        if done >= sent or time.monotonic() - done_at > DRAIN_SECONDS:
            return {"sent": sent, "scored": scored, "dead": dead}
        time.sleep(0.1)


def _check(servers: LocalServers, processes: Processes) -> None:
    for server in servers.servers:
        if not server.alive:
            server.wait_healthy(timeout=0)  # which says how it ended
    processes.check()


def _read(processes: Processes) -> Reading:
    return scrape([process.metrics for process in processes.all if process.metrics])


def _keep_logs_only(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.name != "logs" and entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)


def _say(what: str) -> None:
    print(what, flush=True)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.demo",
        description="Start Kafka, Valkey and Cassandra on free ports, then worker, learner, history, "
        "matured and simulator, and print a line a second: the rate, the time from event to score, the worker's lag, "
        "the model in use, the examples learnt, and the AUC of the scores given so far on the labels that came since.",
    )
    parser.add_argument("usecase", choices=sorted(USECASES))
    parser.add_argument(
        "--duration", type=argument(above_zero), default=inf, metavar="S", help="seconds to run (default: until Ctrl-C)"
    )
    parser.add_argument(
        "--rate", type=argument(rate), default=500.0, metavar="N", help="events a second (default: 500)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
