"""What a worker tells its user: what matters, and nothing that is part of the routine."""

import logging
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError

from streams.runtime.worker import GROUPS, Routine, TopicMissing, run

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


class FailingApp:
    """An app that fails with `error` as soon as it is asked for anything."""

    conf = SimpleNamespace(id="fraud-stages")

    def __init__(self, error: Exception) -> None:
        self._error = error

    @property
    def addresses(self) -> list[str]:
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
