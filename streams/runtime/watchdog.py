"""The watchdog: a thread that lets time pass for a process's health, and ends the process once it has stalled.

It ends it at once (exit code 1) and in one line: nothing can be asked of a process that does not move, and a crash
costs no more than what the last checkpoint has not. A thread of Python's moves while an event loop hangs or
waits; for code that never lets go of the interpreter there is a second bound, kept by the C library.
"""

import faulthandler
import os
import sys
import time
from threading import Event, Thread, main_thread
from types import TracebackType
from typing import Self

from streams.runtime.health import Health

LOOKS = 20  # in the time that counts as stalled
LONGEST_LOOK = 1.0  # seconds between two looks
LAST_RESORT = 2  # times that time, after which the C library ends the process


class Watchdog:
    """Guards a process, named `name`, inside its block.

    A suspended process wakes up no older: between two looks at most twice their distance counts as time. After
    more than `LAST_RESORT` times the stall time it ends, though.
    """

    def __init__(self, name: str, health: Health, stall_seconds: float) -> None:
        self._name, self._health, self._stall_seconds = name, health, stall_seconds
        self._interval = min(LONGEST_LOOK, stall_seconds / LOOKS)
        self._over = Event()
        self._thread = Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._arm()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        looked_at = time.monotonic()
        while not self._over.wait(self._interval):
            self._arm()
            now = time.monotonic()
            self._health.advance(min(now - looked_at, 2 * self._interval))
            looked_at = now
            if stalled := self._health.stalled():
                self._end(stalled)

    def _arm(self) -> None:
        faulthandler.dump_traceback_later(LAST_RESORT * self._stall_seconds, exit=True)

    def _end(self, stalled: str) -> None:
        """Say why and where, past whatever lock the stuck thread may hold, and end."""
        frame = sys._current_frames().get(main_thread().ident or 0)
        where = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "nowhere"
        at = time.strftime("%Y-%m-%d %H:%M:%S")
        line = f"{at} ERROR {__name__}: {self._name} ends: {stalled} (its main thread is at {where})\n"
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, line.encode(errors="replace"))
        os._exit(1)
