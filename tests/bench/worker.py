"""A worker under measurement: its own process, its log, its CPU seconds."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

ROOT = Path(__file__).parents[2]
STOP_SECONDS = 20.0


class BenchError(Exception):
    """A part of the benchmark could not be measured; the message names it and the cause."""


class Worker:
    """`python -m COMMAND` with its standard error in a log file, stopped when the block ends."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.command = ("python", "-m", *command)
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def cpu_seconds(self) -> float:
        """Return the CPU time, user and system, of the process and its children so far."""
        self.check()
        process = psutil.Process(self._process.pid)
        tree = [process, *process.children(recursive=True)]
        times = [member.cpu_times() for member in tree]
        return float(sum(time.user + time.system for time in times))

    def check(self) -> None:
        """Raise BenchError if the process has ended."""
        code = self._process.poll()
        if code is not None:
            raise BenchError(f"{self.name}: the worker ended with exit code {code}: {self._last_line()} ({self.log})")

    def wait_for(self, word: str, seconds: float) -> None:
        """Wait until the process has written this word to its log."""
        deadline = time.monotonic() + seconds
        while word not in self.log.read_text(errors="replace").replace(",", " ").split():
            self.check()
            if time.monotonic() > deadline:
                raise BenchError(f"{self.name}: not '{word}' after {seconds:.0f} s ({self.log})")
            time.sleep(0.05)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Stop the process's clock: it uses no CPU inside the block (SIGSTOP, SIGCONT)."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _last_line(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return next((line for line in reversed(lines) if line.strip()), "no output")
