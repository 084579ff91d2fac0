"""How long scoring paused after each fault, and how fast it went, from the times of first scores."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tests.chaos.found import Scores

JUST = 1.0  # seconds


def longest_pauses(scores: Scores, faults: Sequence[float], end: float) -> list[float]:
    """Return for each fault (seconds since the epoch, ascending) the longest time, in seconds, in which some
    partition brought no new score, of those that began after it and before the next fault.

    >>> one = np.array([1000, 2000, 9000, 9500])
    >>> empty = np.zeros(4, np.uint64)
    >>> longest_pauses(Scores(one, np.zeros(4, np.int64), empty, empty), [1.5, 9.2], 10.0)
    [7.0, 0.5]
    """
    gaps = [
        _gaps(np.sort(scores.at[(scores.at > 0) & (scores.partition == one)])) for one in np.unique(scores.partition)
    ]
    begins, lengths = (np.concatenate(part) for part in zip(*gaps, strict=True))
    longest = []
    # The last score before a pause may be from just before the fault.
    edges = [*(fault - JUST for fault in faults), end]
    for begin, until in pairwise(edges):
        inside = (begins >= begin * 1000) & (begins < until * 1000)
        longest.append(float(lengths[inside].max(initial=0.0)) / 1000)
    return longest


def rate(scores: Scores, begin: float, end: float) -> float:
    """Return how many events a second were scored for the first time between two moments."""
    inside = (scores.at >= begin * 1000) & (scores.at < end * 1000)
    return float(inside.sum()) / (end - begin)


def _gaps(times: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return times[:-1], np.diff(times)
