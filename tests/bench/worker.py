"""A worker under measurement: its own process, its log, its CPU seconds."""

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from infra.processes import Process, Processes


class BenchError(Exception):
    """A part of the benchmark could not be measured; the message names it and the cause."""


class Worker:
    """One child process whose CPU time is read; `check` raises ProcessError if it has ended."""

    def __init__(self, children: Processes, process: Process) -> None:
        self.name, self.log = process.name, process.log
        self.check = children.check
        self.wait_ready = children.wait_ready
        self._process = process

    def cpu_seconds(self) -> float:
        """Return the CPU time, user and system, of the process and its children so far."""
        self.check()
        process = psutil.Process(self._process.popen.pid)
        times = [member.cpu_times() for member in (process, *process.children(recursive=True))]
        return float(sum(time.user + time.system for time in times))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Stop the process's clock: it uses no CPU inside the block (SIGSTOP, SIGCONT)."""
        self._process.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.signal(signal.SIGCONT)


@contextmanager
def running(name: str, command: Sequence[str], environment: Mapping[str, str], logs: Path) -> Iterator[Worker]:
    """Run `python -m COMMAND` as the worker `name` inside the block; its output goes to a file in `logs`."""
    with Processes(logs, environment) as children:
        yield Worker(children, children.start(name, *command))
