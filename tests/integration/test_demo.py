"""The demo as its users start it: it ends by itself with everything scored, or says what went wrong."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from infra.processes import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.local, pytest.mark.timeout(300)]


@contextmanager
def demo(*options: str) -> Iterator["subprocess.Popen[str]"]:
    """Run the demo; nothing it started may be left when it has ended."""
    command = [sys.executable, "-m", "services.demo", "fraud", "--rate", "200", *options]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def read_until(process: "subprocess.Popen[str]", words: str) -> str:
    """Return what the demo prints up to a line with `words`."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(f"it ended before saying '{words}': {said}")


def left_over(said: str) -> list[psutil.Process]:
    """Return the processes that still have to do with the data folder of the demo that said so."""
    found = re.search(r"\(logs in (\S+)\)", said)
    assert found
    folder = str(Path(found[1]).parent)
    return [one for one in psutil.process_iter() if _concerns(one, folder)]


def _concerns(process: psutil.Process, folder: str) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        files = [file.path for file in process.open_files()]
        return any(folder in text for text in (*process.cmdline(), *files))
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def test_it_ends_by_itself_with_everything_scored() -> None:
    """With a duration there is a line a second and a summary without losses; nothing is left but the logs."""
    with demo("--duration", "12") as process:
        said = read_until(process, "simulator ready")
        out, err = process.communicate(timeout=120)
        said += out
        assert process.returncode == 0, said + err
    assert len(re.findall(r"^ +\d+ s .* events/s  event→score .*AUC", said, re.MULTILINE)) >= 8
    counts = re.search(r"events +([\d,]+) sent, ([\d,]+) scored, 0 in the DLQ, 0 lost", said)
    assert counts, said
    assert counts[1] == counts[2]
    assert int(counts[1].replace(",", "")) > 1_000
    learnt = re.search(r"([\d,]+) examples learnt, model \w+@(\d+)", said)
    assert learnt
    assert int(learnt[1].replace(",", "")) > 200
    assert int(learnt[2]) > 0
    assert not left_over(said)
    logs = Path(re.findall(r"\(logs in (\S+)\)", said)[0])
    assert [entry.name for entry in logs.parent.iterdir() if entry.is_dir()] == ["logs"]
    assert {"worker.log", "learner.log", "history.log", "simulator.log", "kafka.log"} <= {
        log.name for log in logs.iterdir()
    }


def test_it_says_which_part_died() -> None:
    """When a part is killed the demo names it with its exit code and log, stops the rest and fails."""
    with demo() as process:
        said = read_until(process, "events/s  event→score")
        (worker,) = [child for child in psutil.Process(process.pid).children() if "services.worker" in child.cmdline()]
        worker.kill()
        out, err = process.communicate(timeout=60)
        assert process.returncode == 1
    assert re.search(r"^error: worker ended with exit code -9; the last lines of \S+worker\.log:", err, re.MULTILINE)
    assert "Traceback" not in err
    assert not left_over(said + out)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_can_be_stopped_while_it_starts(number: int) -> None:
    """A signal during the start ends it at once and leaves nothing behind."""
    with demo() as process:
        said = read_until(process, "valkey")
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130
    assert err.splitlines()[-1] == "stopped while starting"
    assert not left_over(said + out)
