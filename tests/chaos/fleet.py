"""The supervisor: keeps so many processes of each service running, as an orchestrator would.

A process that ends by itself (fenced, refused, a server away at its start) is replaced, and how it ended is kept.
"""

import random
import re
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from infra.processes import Process, Processes

TEND_SECONDS = 0.1
STOP_SECONDS = 40.0  # a last checkpoint may wait for a server that is just back
AGAIN_SECONDS = 1.0  # between two starts of a service whose last one ended at once
WIDTH = 300
FAULT = re.compile(r"\(most recent call |ERROR streams\.runtime\.watchdog:")
"""What a process says that ends by a fault of ours, or hangs; what is expected is said in a line, with exit code 1."""


class NotDone(Exception):
    """A fault finds nothing at work to break, or what it broke does not come back; the message says which."""


@dataclass(frozen=True)
class End:
    """A process that ended unasked: when (seconds since the epoch), which, how, its last line, and whether it may."""

    at: float
    name: str
    code: int | None
    why: str
    sound: bool

    @classmethod
    def of(cls, process: Process) -> "End":
        """Return how a process has ended; it may where it says in a line what has befallen it."""
        code, told = process.popen.returncode, process.log.read_text(encoding="utf-8", errors="replace")
        sound = code == 1 and bool(told.strip()) and not FAULT.search(told)
        return cls(time.time(), process.name, code, _last_words(told), sound)

    def __str__(self) -> str:
        return f"{self.name} ended by itself ({self.code}): {self.why}"


class Fleet:
    """The processes of a use case by service; `want` says how many of each there are to be.

    As a context manager it replaces none any more after the block.
    """

    def __init__(self, processes: Processes, usecase: str) -> None:
        self.want: dict[str, int] = {}
        self.ends: list[End] = []
        self.starts: Counter[str] = Counter()
        self._processes, self._usecase = processes, usecase
        self._running: dict[str, list[Process]] = {}
        self._suspended: list[Process] = []
        self._leaving: list[tuple[Process, float]] = []
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._next_start: dict[str, float] = {}
        self._tending = threading.Thread(target=self._tend, name="fleet", daemon=True)

    def start(self, want: dict[str, int], timeout: float = 90.0) -> None:
        """Start what is wanted, wait until all of it is ready, and look after it from then on."""
        self.want = dict(want)
        self._round()
        self._processes.wait_ready(timeout)
        self._tending.start()

    def running(self, service: str) -> list[Process]:
        """Return the processes of a service that are not suspended."""
        with self._lock:
            return [one for one in self._running.get(service, []) if one.alive and one not in self._suspended]

    def ready(self) -> bool:
        """Say whether every process that is wanted runs and has said that it is ready."""
        with self._lock:
            chosen = {service: self.running(service) for service in self.want}
        return all(sum(one.ready for one in chosen[name]) >= count for name, count in self.want.items())

    def kill(self, service: str, chance: random.Random) -> str:
        """Kill one process of a service with SIGKILL; return its name. Raises NotDone."""
        with self._lock:
            chosen = self._one_at_work(service, chance)
            self._running[service].remove(chosen)
            chosen.signal(signal.SIGKILL)
            self._bury(chosen, -signal.SIGKILL)
        if chosen.popen.returncode != -signal.SIGKILL:
            raise NotDone(f"{chosen.name} had ended by itself")
        return chosen.name

    def suspend(self, service: str, chance: random.Random) -> Process:
        """Stop the clock of one process; another is started in its place, as it looks dead. Raises NotDone."""
        with self._lock:
            chosen = self._one_at_work(service, chance)
            chosen.signal(signal.SIGSTOP)
            self._suspended.append(chosen)
        return chosen

    def wake(self, process: Process) -> None:
        """Let a suspended process go on, as one too many."""
        process.signal(signal.SIGCONT)

    def dismiss(self, service: str, process: Process) -> bool:
        """End what was one too many, if it has not ended by itself; return whether it had."""
        with self._lock:
            gone = not process.alive
            self._suspended.remove(process)
            if not gone:  # else the next round finds it
                self._dismiss(service, process)
        return gone

    def stop(self) -> list[str]:
        """Ask everything to end, and return the epitaphs of what did not end well."""
        self.leave()
        everything = [one for running in self._running.values() for one in running]
        everything += [one for one, _ in self._leaving]
        self._processes.stop(*everything, timeout=STOP_SECONDS)
        return [one.epitaph() for one in everything if one.popen.returncode != 0]

    def leave(self) -> None:
        """Look after the processes no longer."""
        self._over.set()
        if self._tending.is_alive():
            self._tending.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave()

    def _tend(self) -> None:
        while not self._over.wait(TEND_SECONDS):
            with self._lock:
                self._round()

    def _round(self) -> None:
        for service, count in self.want.items():
            running = self._running.setdefault(service, [])
            for process in [one for one in running if not one.alive and one not in self._suspended]:
                running.remove(process)
                self._bury(process)
            active = [one for one in running if one not in self._suspended]
            for process in active[count:]:
                self._dismiss(service, process)
            if time.monotonic() >= self._next_start.get(service, 0.0):
                for _ in range(count - len(active)):
                    self._next_start[service] = time.monotonic() + AGAIN_SECONDS
                    running.append(self._start(service))
        for process, deadline in list(self._leaving):
            if time.monotonic() > deadline:
                process.signal(signal.SIGKILL)
            if not process.alive:
                self._leaving.remove((process, deadline))
                # One that was told so before it listened ends by the signal itself.
                self._bury(process, 0, -signal.SIGTERM)

    def _start(self, service: str) -> Process:
        self.starts[service] += 1
        return self._processes.start(f"{service}-{self.starts[service]}", f"services.{service}", self._usecase)

    def _dismiss(self, service: str, process: Process) -> None:
        """Ask a process to end; the rounds to come wait for it."""
        self._running[service].remove(process)
        process.signal(signal.SIGTERM)
        self._leaving.append((process, time.monotonic() + STOP_SECONDS))

    def _one_at_work(self, service: str, chance: random.Random) -> Process:
        if ready := [one for one in self.running(service) if one.ready]:
            return chance.choice(ready)
        raise NotDone(f"no {service} is ready")

    def _bury(self, process: Process, *asked: int) -> None:
        """Let go of a process that ends, and keep how it ended unless with one of the exit codes `asked` for."""
        process.popen.wait()
        self._processes.all.remove(process)
        if process.popen.returncode not in asked:
            self.ends.append(End.of(process))


def _last_words(told: str) -> str:
    lines = [line for line in told.splitlines() if line.strip()]
    if not lines:
        return "without a word"
    ending = [line for line in lines if " ends: " in line] or lines
    return (ending[-1].partition("ERROR ")[2] or ending[-1])[:WIDTH]
