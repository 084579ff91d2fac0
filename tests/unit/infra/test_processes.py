"""Child processes: what they say is heard, a death is told, and none outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from infra.processes import ROOT, ProcessError, Processes

CHILD = """
import os, sys, time
print("metrics: http://127.0.0.1:7/metrics", flush=True)
print("ready", os.environ.get("WORD"), flush=True)
time.sleep(60)
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Make a module of some code and return its name."""

    def module(text: str) -> str:
        name = f"child{len(list(tmp_path.iterdir()))}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return module


def gone(pid: int) -> bool:
    """Ended, whether or not whoever inherited it has collected it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_what_a_child_says_is_heard(tmp_path: Path, code: Callable[[str], str]) -> None:
    """A child is ready when it says so, tells where its metrics are, and sees its environment."""
    with Processes(tmp_path / "logs", {"WORD": "all"}) as processes:
        one = processes.start("one", code(CHILD))
        two = processes.start("two", code(CHILD), environment={"WORD": "alone"})
        processes.wait_ready(20)
        assert one.metrics == "http://127.0.0.1:7/metrics"
        assert "ready all" in one.log.read_text()
        assert "ready alone" in two.log.read_text()
    assert gone(one.popen.pid)
    assert gone(two.popen.pid)


def test_a_death_is_told(tmp_path: Path, code: Callable[[str], str]) -> None:
    """A child that ends is named with its exit code and its last words."""
    with Processes(tmp_path / "logs", {}) as processes:
        processes.start("poor", code("print('the cause'); raise SystemExit(3)"))
        with pytest.raises(ProcessError, match=r"poor ended with exit code 3[\s\S]*the cause"):
            processes.wait_ready(20)


def test_a_child_that_never_is_ready_is_told(tmp_path: Path, code: Callable[[str], str]) -> None:
    """Waiting is bounded, and says for whom it was."""
    with Processes(tmp_path / "logs", {}) as processes:
        processes.start("slow", code("import time; time.sleep(60)"))
        with pytest.raises(ProcessError, match="after 1 s: slow is not ready"):
            processes.wait_ready(1)


def test_a_child_that_will_not_stop_is_killed(tmp_path: Path, code: Callable[[str], str]) -> None:
    """Stopping ends a child that ignores the request, too."""
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + CHILD
    with Processes(tmp_path / "logs", {}) as processes:
        child = processes.start("deaf", code(deaf))
        processes.wait_ready(20)
        processes.stop(child, timeout=0.2)
        assert child.popen.returncode == -signal.SIGKILL
        processes.check()  # who was stopped on purpose is not missed


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_children_die_with_a_killed_parent(tmp_path: Path, code: Callable[[str], str]) -> None:
    """Even SIGKILL to the parent leaves no child behind."""
    parent = code(
        f"""
import time
from pathlib import Path
from infra.processes import Processes
processes = Processes(Path({str(tmp_path / "logs")!r}), {{}})
print(processes.start("child", {code(CHILD)!r}).popen.pid, flush=True)
time.sleep(60)
"""
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    with subprocess.Popen([sys.executable, "-m", parent], stdout=subprocess.PIPE, env=environment) as popen:
        assert popen.stdout is not None
        pid = int(popen.stdout.readline())
        popen.kill()
    deadline = time.monotonic() + 10
    while not gone(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert gone(pid)
