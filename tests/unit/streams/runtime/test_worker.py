"""What a worker tells its user: what matters, and nothing that is part of the routine."""

import logging

import pytest
from aiokafka.errors import GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError

from streams.runtime.worker import GROUPS, Routine

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


def test_the_messages_are_those_of_aiokafka() -> None:
    """What is kept out is what the pinned aiokafka says."""
    from aiokafka.consumer import group_coordinator  # noqa: PLC0415

    with open(group_coordinator.__file__) as file:
        source = file.read()
    assert group_coordinator.log.name == GROUPS
    assert f'"{HEARTBEAT}"' in source
    assert '"Marking the coordinator dead (node %s)for group %s."' in source
    assert '"Group Coordinator Request failed: %s", err' in source
