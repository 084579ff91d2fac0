"""In which order events and labels go out, and when: stream time only, no clock."""

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.int64]


def merged(times: Times, delay: int, labelled: int) -> tuple[Times, NDArray[np.bool_]]:
    """Return, of every record in sending order, its time and whether it is a label.

    Events and labels each come in the events' order, the first `labelled` of which have a label, `delay` ms
    after them; at equal times labels come before events.

    >>> merged(np.array([10, 20]), 10, 2)[1].tolist()
    [False, True, False, True]
    """
    due = np.concatenate([times[:labelled] + delay, times])
    order = np.argsort(due, kind="stable")
    return due[order], order < labelled


def known_by(times: Times, delay: int, latest: int) -> int:
    """Return how many of the events have a label by `latest` (epoch ms)."""
    return int(np.searchsorted(times, latest - delay, side="right"))
