"""A campaign says which ends may be and which may not, and never breaks what is not at work."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local import LocalServers
from infra.local.cluster import LocalCluster, ValkeyCluster
from infra.processes import Process, Processes
from streams.usecases import FRAUD
from tests.chaos import faults, members
from tests.chaos.campaign import Campaign, Plan
from tests.chaos.faults import CAMPAIGN, HISTORY, KILL, LEARNER, ZOMBIE, Fault, World
from tests.chaos.fleet import End, Fleet, NotDone
from tests.chaos.members import BOTH, BROKER, HANGS, MASTER
from tests.chaos.verdict import Verdict, judge_ends

LINE = "2026-01-31 12:00:00,000 ERROR streams.runtime.worker: worker fraud-stages ends"
FENCED = f"{LINE}: fraud.customer.0: epoch 3 is over, it is 4 now"
LOST = f"{LINE}: fraud.customer.0: Redis at 127.0.0.1:1 has lost writes of epoch 3"
AWAY = "metrics: http://127.0.0.1:1/metrics\nworker: Kafka at 127.0.0.1:1 does not answer"
RAISED = 'Traceback (most recent call last):\n  File "worker.py", line 1, in work\nTypeError: not a batch'
STALLED = f"{LINE.replace('worker: ', 'watchdog: ', 1)}: taking partitions over for 60 s (its main thread is at a.py:1)"
HUNG = "Timeout (0:02:00)!\nThread 0x00007f0000000000 (most recent call first):\n  File a.py, line 1 in work"


def ended(log: Path, told: str, code: int) -> Process:
    """A process that has said something and ended."""
    log.write_text(told)
    end = f"import os, signal; os.kill(os.getpid(), {-code})" if code < 0 else f"raise SystemExit({code})"
    process = Process("worker-1", log, subprocess.Popen([sys.executable, "-I", "-S", "-c", end]))
    process.popen.wait()
    return process


@pytest.mark.parametrize("told", [FENCED, LOST, AWAY])
def test_an_end_that_is_expected_is_no_difference(tmp_path: Path, told: str) -> None:
    """Exit code 1 and a line that says what has befallen the process."""
    verdict = Verdict()
    judge_ends(verdict, [End.of(ended(tmp_path / "log", told, 1))])
    assert verdict.differences == []
    assert verdict.lines[0][1].startswith("1 (1 × ")


@pytest.mark.parametrize(
    ("told", "code", "why"),
    [
        (f"{LINE}\n{RAISED}", 1, "TypeError: not a batch"),
        (RAISED, 1, "TypeError: not a batch"),
        (f"{FENCED}\n", -signal.SIGSEGV, FENCED.partition("ERROR ")[2]),
        ("ready\n", -signal.SIGKILL, "ready"),
        ("ready\n", 0, "ready"),
        ("worker: HEADRACE_REDIS: no URL", 2, "worker: HEADRACE_REDIS: no URL"),
        (STALLED, 1, STALLED.partition("ERROR ")[2]),
        (HUNG, 1, "  File a.py, line 1 in work"),
        ("", 1, "without a word"),
    ],
)
def test_an_end_of_any_other_kind_is_a_difference(tmp_path: Path, told: str, code: int, why: str) -> None:
    """A failure of ours, a signal that nobody sent, a stall, a wrong setting, and a good end that nobody asked for."""
    verdict = Verdict()
    judge_ends(verdict, [End.of(ended(tmp_path / "log", told, code))])
    assert verdict.differences == [f"worker-1 ended by itself ({code}): {why}"]


@pytest.fixture
def idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Servers that do not run and a fleet that never gets ready."""
    monkeypatch.setattr(faults, "BACK_SECONDS", 0.2)
    fleet = Fleet(Processes(tmp_path, {}), FRAUD.name)
    fleet.want = {"worker": 1, "learner": 1, "history": 1}
    return World(LocalServers(tmp_path / "servers"), FRAUD.topics(2).scores, fleet, random.Random(1))


@pytest.mark.parametrize(
    "fault", [KILL, LEARNER, HISTORY, ZOMBIE, BROKER, MASTER, BOTH, *HANGS], ids=lambda fault: fault.name
)
def test_nothing_is_broken_that_is_not_at_work(idle: World, fault: Fault) -> None:
    """The fault says so, and does not count as one."""
    with pytest.raises(NotDone, match="not all was ready and events scored within"):
        fault.do(idle)
    assert idle.log == []


def test_only_what_is_ready_is_killed_or_suspended(idle: World) -> None:
    """Whatever is there or not, a fault never takes what has not begun."""
    for take in (idle.fleet.kill, idle.fleet.suspend):
        with pytest.raises(NotDone, match="no worker is ready"):
            take("worker", idle.chance)


def test_a_cluster_that_is_not_whole_again_is_no_fault_done(
    idle: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes next would break what is broken."""
    monkeypatch.setattr(members, "BACK_SECONDS", 0.2)
    monkeypatch.setattr(members, "AWAY_SECONDS", 0.0)
    monkeypatch.setattr(ValkeyCluster, "formed", lambda _: False)
    idle.servers = LocalCluster(tmp_path / "cluster")
    with pytest.raises(NotDone, match="the Redis Cluster was not whole again"):
        members._away(idle)


def test_a_fault_that_was_not_done_fails_the_campaign(idle: World, tmp_path: Path) -> None:
    """It is named, and the campaign does not go on to others."""
    plan = Plan(seed=1, seconds=0.0, rate=1.0, faults=[KILL, *CAMPAIGN], quiet=0.0, warm=0.0)
    campaign = Campaign(plan, idle.servers, tmp_path, lambda _: None)
    campaign._carry_out(idle, idle.fleet)
    (difference,) = campaign.verdict.differences
    assert "was not done, nor what was to follow: not all was ready" in difference
