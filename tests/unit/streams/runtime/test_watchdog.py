"""The watchdog in a process of its own: who hangs ends with exit code 1, and who does not lives."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
STALL = 1.0
SECONDS = 30.0  # the longest that anything here may take
PROCESS = """
import asyncio, re, time
from streams.metrics import Metrics
from streams.runtime.health import Health
from streams.runtime.watchdog import Watchdog

health = Health([], Metrics("test"), {stall})

async def beat(seconds):
    print("begun", flush=True)
    for _ in range(int(10 * seconds)):
        await asyncio.sleep(0.1)
        health.beat()

async def main():
    health.beat()
    {body}

with Watchdog("worker test", health, {stall}):
    asyncio.run(main())
"""
WAITS = 'with health.working("a checkpoint"): await beat(60)'
HANGS = "time.sleep(60)"
HOLDS_THE_INTERPRETER = "re.match('(a+)+$', 60 * 'a' + 'b')"


@contextmanager
def started(body: str) -> "Iterator[subprocess.Popen[str]]":
    """A guarded process whose event loop does `body`, gone after the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS.format(stall=STALL, body=body)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("body", "why"), [(WAITS, "a checkpoint has not ended for 1 s"), (HANGS, "the event loop has been stuck for 1 s")]
)
def test_who_does_not_move_ends_in_one_line(body: str, why: str) -> None:
    """Whether it waits for what never comes or its event loop hangs: exit code 1, why, and where it is."""
    with started(body) as process:
        _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    (line,) = said.splitlines()
    assert f"worker test ends: {why} (its main thread is at " in line
    assert (body == HANGS) == ("<string>:" in line)  # the line of the program that sleeps


def test_who_holds_the_interpreter_ends_as_well() -> None:
    """Code that lets no other thread run ends within twice the time: exit code 1, and where it is."""
    with started(HOLDS_THE_INTERPRETER) as process:
        _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert "Timeout" in said
    assert "in match" in said


def test_who_moves_or_was_suspended_lives() -> None:
    """An event loop that runs is left alone for as long as it likes, and is no older after a suspension."""
    with started(f"await beat({2 * STALL})") as process:
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.5 * STALL)  # how long it is suspended is what is tested
        process.send_signal(signal.SIGCONT)
        _, said = process.communicate(timeout=SECONDS)
    assert (process.returncode, said) == (0, "")
