"""Our own services as child processes: started together, watched, stopped together.

Each has its own process group and log file, and dies with the process that started it, however that ends.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from infra import local

ROOT = Path(__file__).parents[1]
GUARD = Path(local.__file__).with_name("guard.py")
POLL = 0.05
STOP_SECONDS = 15.0
LOG_LINES, LOG_WIDTH = 12, 300


class ProcessError(Exception):
    """A process ended or did not become ready; the message has its name, exit code and last log lines."""


@dataclass(frozen=True)
class Process:
    """One child: `python -m` something, its output in `log`."""

    name: str
    log: Path
    popen: "subprocess.Popen[bytes]"

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.popen.poll() is None

    @property
    def ready(self) -> bool:
        """Whether it has said `ready`."""
        return re.search(r"^(.*: )?ready\b", self._told(), re.MULTILINE) is not None

    @property
    def metrics(self) -> str | None:
        """Where its metrics are, once it has said so."""
        said = re.search(r"^metrics: (\S+)$", self._told(), re.MULTILINE)
        return said[1] if said else None

    def signal(self, number: int) -> None:
        """Send a signal to the process and what it started, if it still runs."""
        if self.alive:
            os.killpg(self.popen.pid, number)

    def epitaph(self) -> str:
        """Say how it ended, or that it runs, and its last log lines."""
        code = self.popen.poll()
        how = "is not ready" if code is None else f"ended with exit code {code}"
        lines = [line[:LOG_WIDTH] for line in self._told().splitlines() if line.strip()][-LOG_LINES:]
        return "\n  ".join([f"{self.name} {how}; the last lines of {self.log}:", *lines])

    def _told(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


class Processes:
    """The children of one run, with their logs in `logs` and `environment` on top of this process's own.

    As a context manager it leaves none behind.
    """

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self.all: list[Process] = []
        self._logs = logs
        self._environment = {**os.environ, **environment}
        # The kernel ties a child's life to the thread that started it, so one lasting thread starts them all.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="processes")
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Process:
        """Start `python -m arguments…` at the project's root; `environment` is this child's alone."""
        process = self._starter.submit(self._start, name, arguments, environment or {}).result()
        self.all.append(process)
        return process

    def check(self) -> None:
        """Raise ProcessError if a child has ended by itself."""
        for process in self.all:
            if not process.alive:
                raise ProcessError(process.epitaph())

    def wait_ready(self, timeout: float) -> None:
        """Wait until every child is ready; raise ProcessError if one ends or is not ready in `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while waiting := [process for process in self.all if not process.ready]:
            self.check()
            if time.monotonic() > deadline:
                raise ProcessError(f"after {timeout:.0f} s: {waiting[0].epitaph()}")
            time.sleep(POLL)

    def stop(self, *chosen: Process, timeout: float = STOP_SECONDS) -> None:
        """Ask children (all, if none is given) to end, together, and kill what has not after `timeout` seconds."""
        ending = chosen or tuple(self.all)
        for process in ending:
            process.signal(signal.SIGTERM)
        deadline = time.monotonic() + timeout
        for process in ending:
            try:
                process.popen.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.signal(signal.SIGKILL)
                process.popen.wait()
        self.all = [process for process in self.all if process not in ending]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self._starter.shutdown()

    def _start(self, name: str, arguments: tuple[str, ...], environment: Mapping[str, str]) -> Process:
        log = self._logs / f"{name}.log"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                [sys.executable, "-I", "-S", str(GUARD), str(os.getpid()), sys.executable, "-m", *arguments],
                cwd=ROOT,
                env={**self._environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal is for the parent alone
            )
        return Process(name, log, popen)
