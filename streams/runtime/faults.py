"""Fault points: the places where a test can kill the process, one at every boundary between two steps.

`HEADRACE_FAULT=copied:3` kills the process, as `kill -9` does, when it passes the point `copied` for the third time.
Without the setting a point is one look into an empty dictionary.
"""

import logging
import os
import signal
from collections.abc import Mapping
from re import fullmatch

from streams.settings import SettingsError

log = logging.getLogger(__name__)

VARIABLE = "HEADRACE_FAULT"

POINTS = {
    "claimed": "the epoch is raised, nothing is read yet",
    "assigned": "all positions are set, no batch has come yet",
    "gated": "a batch is read and through the gate, nothing of it is folded",
    "folded": "a batch is folded, none of its outputs is handed to the sender",
    "handed-over": "the outputs for one partition are handed to the sender, those for others may be not",
    "sent": "all outputs are handed to the sender, the batch does not count yet",
    "settled": "Kafka has acknowledged one batch of outputs, others may be not",
    "copied": "states, offset and marks are copied, their outputs may be not acknowledged",
    "acknowledged": "every output is acknowledged, nothing is kept",
    "kept": "states, offset and marks are kept, the worker has not noted it",
    "committed": "the offset is committed to Kafka too",
    "given-up": "the last checkpoint of a partition that is given up is kept, the group does not know yet",
}
"""Every point, with what is done when a process dies there; the steps are those of `checkpoint.py`."""

_left: dict[str, int] = {}  # passings until the end


def arm(environment: Mapping[str, str]) -> None:
    """Read `HEADRACE_FAULT` (`NAME` or `NAME:N`, the N-th passing); raise SettingsError where there is no such point.

    >>> arm({"HEADRACE_FAULT": "lunch"})
    Traceback (most recent call last):
    streams.settings.reading.SettingsError: HEADRACE_FAULT: no point 'lunch'; there are claimed, assigned, gated, \
folded, handed-over, sent, settled, copied, acknowledged, kept, committed, given-up
    """
    if (text := environment.get(VARIABLE)) is None:
        return
    name, colon, number = text.partition(":")
    if name not in POINTS:
        raise SettingsError(f"{VARIABLE}: no point {name!r}; there are {', '.join(POINTS)}")
    if colon and not fullmatch(r"[1-9]\d*", number):
        raise SettingsError(f"{VARIABLE}: {number!r} is no number of passings, 1 or more")
    _left[name] = int(number or 1)
    log.warning("%s=%s: this process will kill itself there", VARIABLE, text)


def point(name: str) -> None:
    """Pass the point: end the process at once if it is armed and this is the passing."""
    if name not in _left:
        return
    _left[name] -= 1
    if _left[name] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
