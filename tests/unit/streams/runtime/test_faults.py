"""A fault point ends the process exactly there, as often passed as was asked for, and only where it is armed."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import streams
from streams.runtime import faults
from streams.settings import SettingsError

SOURCE = Path(streams.__file__).parent


def passed(spec: str | None) -> tuple[int, str]:
    """Let a process pass `copied` three times and say so: its exit code and what it said."""
    program = (
        "import os; from streams.runtime import faults; faults.arm(os.environ)\n"
        "for _ in range(3): print('before', flush=True); faults.point('copied')"
    )
    environment = {"PYTHONPATH": str(SOURCE.parent)} | ({} if spec is None else {faults.VARIABLE: spec})
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, timeout=60)
    return done.returncode, done.stdout.decode()


@pytest.mark.parametrize(
    ("spec", "passings", "code"),
    [("copied", 1, -signal.SIGKILL), ("copied:3", 3, -signal.SIGKILL), ("kept", 3, 0), (None, 3, 0)],
)
def test_a_process_dies_at_the_point_and_the_passing_named(spec: str | None, passings: int, code: int) -> None:
    """By SIGKILL: nothing after the point is done, no handler runs, nothing is flushed."""
    assert passed(spec) == (code, "before\n" * passings)


@pytest.mark.parametrize("spec", ["", "lunch", "copied:", "copied:0", "copied:-1", "copied:x", "copied:1:1"])
def test_a_wrong_fault_is_refused_by_name(spec: str) -> None:
    """A test that armed nothing would hold nothing."""
    with pytest.raises(SettingsError, match="HEADRACE_FAULT: "):
        faults.arm({faults.VARIABLE: spec})
    faults.point("copied")  # nothing is armed


def test_every_point_is_somewhere() -> None:
    """What the table names is passed somewhere in the source, and nothing else is."""
    text = "".join(path.read_text() for path in SOURCE.rglob("*.py") if path.name != "faults.py")
    assert set(re.findall(r'faults\.point\("([^"]+)"\)', text)) == set(faults.POINTS)
