"""What a worker tells its user: what matters, and nothing that is part of the routine."""

import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError

from streams.runtime.worker import GROUPS, TELL_SECONDS, Repeated, Routine, TopicMissing, run

ROOT = Path(__file__).parents[4]

HEARTBEAT = "Heartbeat failed for group %s because it is rebalancing"


@pytest.mark.parametrize(
    ("message", "arguments", "told"),
    [
        ("Group Coordinator Request failed: %s", (GroupCoordinatorNotAvailableError(),), False),
        ("Group Coordinator Request failed: %s", (NotCoordinatorForGroupError(),), True),
        ("Marking the coordinator dead (node %s)for group %s.", (1, "g"), False),
        (HEARTBEAT, ("g",), False),
        ("Heartbeat failed for group %s: generation id is not  current.", ("g",), True),
        ("Heartbeat session expired - marking coordinator dead", (), True),
    ],
)
def test_what_a_group_does_by_itself_is_not_told(message: str, arguments: tuple[object, ...], told: bool) -> None:
    """A group that forms or changes is no trouble; one that is lost is."""
    record = logging.LogRecord(GROUPS, logging.WARNING, "", 0, message, arguments, None)
    assert Routine().filter(record) is told


def test_a_crash_is_told_once() -> None:
    """Whichever of Faust's services says it: the line that the worker ends with is enough."""
    record = logging.LogRecord(
        "faust.tables.recovery", logging.ERROR, "", 0, "[^--Recovery]: Crashed reason=%r", (), None
    )
    assert not Routine().filter(record)


def test_what_is_said_again_and_again_is_told_now_and_then() -> None:
    """A broker that is away fills no log; others, and other messages, are not held back by it."""
    repeated = Repeated()

    def told(seconds: float, name: str, message: str, node: int) -> bool:
        record = logging.LogRecord(name, logging.ERROR, "", 0, message, (node,), None)
        record.created = 1e9 + seconds
        return repeated.filter(record)

    assert told(0, "aiokafka", "Unable connect to node with id %s", 1)
    assert not told(0.1, "aiokafka", "Unable connect to node with id %s", 2)
    assert told(0.1, "aiokafka.consumer.fetcher", "Failed fetch messages from %s", 1)
    assert all(told(0.2, "streams.runtime.health", "%s is away", 1) for _ in range(2))
    assert not told(TELL_SECONDS - 0.1, "aiokafka", "Unable connect to node with id %s", 1)
    assert told(TELL_SECONDS, "aiokafka", "Unable connect to node with id %s", 1)


ENDLESS = """
import asyncio, os, signal, threading
from types import SimpleNamespace
from streams.runtime import worker

class App:
    conf = SimpleNamespace(id="fraud-stages")
    crash_reason = {reason}

    async def start(self):
        threading.Thread(target=threading.Event().wait).start()  # as a client's may be
        os.kill(os.getpid(), signal.SIGTERM)

    async def wait_until_stopped(self):
        await asyncio.Event().wait()

    stop = wait_until_stopped

async def check(*_): ...

worker._check, worker.STOP_SECONDS = check, 0.3
raise SystemExit(worker.run(App()))
"""


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        ("None", "ends: stopped, but not in good order within 0 s"),
        ("OSError('no space')", "ends: no space, and not in good order within 0 s"),
    ],
)
def test_a_stop_that_does_not_end_is_cut_short(reason: str, line: str) -> None:
    """What the last checkpoint waits for may be away for long: exit code 1 and a line, whatever threads there are."""
    code = ENDLESS.format(reason=reason)
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert f"worker fraud-stages {line}" in done.stderr
    assert "Traceback" not in done.stderr


class FailingApp:
    """An app that fails with `error` as soon as it is asked for anything."""

    conf = SimpleNamespace(id="fraud-stages")

    def __init__(self, error: Exception) -> None:
        self._error = error

    @property
    def kafka(self) -> str:
        raise self._error


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (TopicMissing("no topic named fraud.scores"), False),
        (ConnectionError("Redis does not answer"), False),
        (KeyError(7), True),
        (IndexError("out of range"), True),
    ],
)
def test_a_fault_of_ours_shows_where_it_is(
    error: Exception, shown: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What befalls a sound worker is a line; a missing key or index is a fault, and comes with its traceback."""
    monkeypatch.setattr(sys, "setswitchinterval", lambda _: None)  # the other tests' too
    app: Any = FailingApp(error)
    assert run(app) == 1
    last = caplog.records[-1]
    assert last.getMessage().startswith("worker fraud-stages ends")
    assert bool(last.exc_info) is shown
    assert shown or str(error) in last.getMessage()


def test_the_messages_are_those_of_aiokafka() -> None:
    """What is kept out is what the pinned aiokafka says."""
    from aiokafka.consumer import group_coordinator  # noqa: PLC0415

    with open(group_coordinator.__file__) as file:
        source = file.read()
    assert group_coordinator.log.name == GROUPS
    assert f'"{HEARTBEAT}"' in source
    assert '"Marking the coordinator dead (node %s)for group %s."' in source
    assert '"Group Coordinator Request failed: %s", err' in source
