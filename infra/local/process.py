"""A process that is known by its pid and its start time, so that a reused pid is never taken for it."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

POLL = 0.02  # seconds
_GUARD = Path(__file__).with_name("guard.py")


@dataclass(frozen=True, slots=True)
class ProcessId:
    """Which process: `started` is in seconds since the epoch, as the kernel says it."""

    pid: int
    started: float

    @property
    def process(self) -> psutil.Process | None:
        """The process, or None once it has ended."""
        try:
            process = psutil.Process(self.pid)
            # The start time is ticks since boot; the boot time moves when the clock is set right.
            same = abs(process.create_time() - self.started) < 2
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process is not None

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        process = self.process
        if process is not None:
            process.send_signal(number)

    def wait(self, timeout: float) -> bool:
        """Wait until it has ended, at most `timeout` seconds; whether it has."""
        # Looking, unlike psutil's wait, leaves the exit code of a child to its owner.
        deadline = time.monotonic() + timeout
        while self.alive:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL)
        return True

    def stop(self, timeout: float) -> None:
        """Ask it to end; after `timeout` seconds, make it."""
        self.signal(signal.SIGTERM)
        if not self.wait(timeout):
            self.kill()

    def kill(self) -> None:
        """End it at once."""
        self.signal(signal.SIGKILL)
        self.wait(10)


def spawn(command: list[str], log: Path, folder: Path, detached: bool) -> tuple[ProcessId, "subprocess.Popen[bytes]"]:
    """Start a command in its own session, writing to `log`; unless detached it dies with this process."""
    # The kernel ties a child to the thread that started it, so every child has the same, lasting, thread.
    return _spawner().submit(_spawn, command, log, folder, detached).result()


@cache
def _spawner() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="local-servers")


def _spawn(command: list[str], log: Path, folder: Path, detached: bool) -> tuple[ProcessId, "subprocess.Popen[bytes]"]:
    guard = [] if detached else [sys.executable, "-I", "-S", str(_GUARD), str(os.getpid())]
    with log.open("ab") as output:
        popen = subprocess.Popen(
            [*guard, *command],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C in the terminal is for the owner alone
        )
    return ProcessId(popen.pid, psutil.Process(popen.pid).create_time()), popen
