"""What the three servers have in common: start, wait until healthy, stop, kill, and start again."""

import signal
import subprocess
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from .errors import LocalServerError
from .ports import HOST, answers, free_port, is_free
from .process import ProcessId, spawn

POLL = 0.05  # seconds between two looks at a server that is starting
START_TIMEOUT = 120.0  # seconds; 8 on two idle cores, 48 were seen at a load of 16
LOG_LINES, LOG_WIDTH = 12, 300


class Server(ABC):
    """One local server: its port, its folder below `root`, its log and its process.

    `identity` is made with the data folder, given to the server and asked of whoever answers on its port, so
    that another stack's server is never taken for ours. Port and data stay the same from one start to the next.
    """

    name: ClassVar[str]
    stop_timeout: ClassVar[float] = 10.0

    def __init__(self, root: Path, identity: str, port: int | None = None, detached: bool = False) -> None:
        self.identity = identity
        self.port = port or free_port()
        self.folder = root / self.name
        self.log_path = root / "logs" / f"{self.name}.log"
        self.process_id: ProcessId | None = None
        self._detached = detached
        self.lasting = detached  # worth the optimising compiler
        self._popen: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def address(self) -> str:
        """Where clients reach it, `host:port`."""
        return f"{HOST}:{self.port}"

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        if self._popen is not None:
            return self._popen.poll() is None
        return self.process_id is not None and self.process_id.alive

    @abstractmethod
    def prepare(self) -> list[str]:
        """Write the configuration, make the data folder ready, and return the command to run."""

    @abstractmethod
    def answering(self) -> str | None:
        """Who is ready on the port, None if nobody yet; equal to `identity` if it is ours."""

    def start(self, *options: str) -> None:
        """Start the process; it is ready for clients after `wait_healthy`. `options` go to the program first."""
        if self.alive:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self.log_path.touch()
        self._log_start = self.log_path.stat().st_size
        if not is_free(self.port):
            raise LocalServerError(f"{self.name}: port {self.port} is already in use")
        program, *arguments = self.prepare()
        command = [program, *options, *arguments]
        self.process_id, self._popen = spawn(command, self.log_path, self.folder, self._detached)

    def wait_healthy(self, timeout: float = START_TIMEOUT) -> None:
        """Wait until the server answers in its own protocol and is ours; LocalServerError says why not."""
        deadline = time.monotonic() + timeout
        while True:
            if not self.alive:
                raise LocalServerError(self._epitaph())
            who = self.answering() if answers(self.port) else None
            if who == self._expected():
                return
            if who is not None:
                raise LocalServerError(f"{self.name}: port {self.port} is answered by another server ({who})")
            if time.monotonic() > deadline:
                raise LocalServerError(f"{self.name}: not ready after {timeout:.0f} s{self._last_lines()}")
            time.sleep(POLL)

    def stop(self) -> None:
        """Ask the server to end and wait; kill it if it does not."""
        if self._popen is not None:  # our own child, known without a clock that may be set right
            self._popen.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(self.stop_timeout)
            self.kill()
        elif self.process_id is not None:
            self.process_id.stop(self.stop_timeout)

    def kill(self) -> None:
        """End the server with SIGKILL, as a crash would."""
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait()
        elif self.process_id is not None:
            self.process_id.kill()

    def suspend(self) -> None:
        """Stop its clock: its connections stay and nothing answers."""
        if self.process_id is not None:
            self.process_id.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `suspend`."""
        if self.process_id is not None:
            self.process_id.signal(signal.SIGCONT)

    def _expected(self) -> str:
        return self.identity

    def _epitaph(self) -> str:
        code = self._popen.poll() if self._popen is not None else None
        how = "is not running" if code is None else f"ended, exit code {code}"
        return f"{self.name}: {how}{self._last_lines()}"

    def _last_lines(self) -> str:
        with self.log_path.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").splitlines()
        told = [line for line in lines if line.strip() and not line.startswith("\tat ")][-LOG_LINES:]
        return "".join(["; last log lines:", *(f"\n  {line[:LOG_WIDTH]}" for line in told)]) if told else ""
