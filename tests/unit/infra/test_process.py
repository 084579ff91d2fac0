import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.local.process import ProcessId, spawn

SLEEP = "import time; time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
)


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([sys.executable, "-c", SLEEP]) as popen:
        yield popen
        popen.kill()


def test_another_process_under_the_same_pid_is_not_ours(sleeper: "subprocess.Popen[bytes]") -> None:
    """A pid that was given to a later process is dead to us: no signal reaches it."""
    started = psutil.Process(sleeper.pid).create_time()
    ours, before = ProcessId(sleeper.pid, started), ProcessId(sleeper.pid, started - 3600)
    assert ours.alive
    assert not before.alive
    before.stop(timeout=1)
    before.kill()
    assert ours.alive


def test_stop_ends_a_process_that_ignores_it(tmp_path: Path) -> None:
    """SIGTERM first, SIGKILL when the time is over; what it wrote is in the log."""
    log = tmp_path / "log"
    process, popen = spawn([sys.executable, "-c", STUBBORN], log, tmp_path, detached=False)
    deadline = time.monotonic() + 10
    while b"deaf" not in log.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.stop(timeout=0.2)
    assert not process.alive
    assert popen.wait() == -9


def test_a_dead_process_keeps_its_exit_code(tmp_path: Path) -> None:
    """A child that ended is not alive although nobody has collected it, and its exit code is there."""
    process, popen = spawn([sys.executable, "-c", "raise SystemExit(7)"], tmp_path / "log", tmp_path, detached=True)
    deadline = time.monotonic() + 10
    while process.alive and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not process.alive
    assert popen.wait() == 7
