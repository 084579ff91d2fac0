"""From scores to decisions by two thresholds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

APPROVE, REVIEW, DECLINE = "approve", "review", "decline"
_DECISIONS = (APPROVE, REVIEW, DECLINE)


@dataclass(frozen=True)
class Thresholds:
    """From `review` on an event is looked at, from `decline` on it is refused; both are scores in [0, 1]."""

    review: float
    decline: float


def decide(scores: NDArray[np.float64], thresholds: Thresholds) -> list[str]:
    """Return the decision on each score.

    >>> decide(np.array([0.1, 0.3, 0.9]), Thresholds(review=0.2, decline=0.6))
    ['approve', 'review', 'decline']
    """
    places = np.searchsorted([thresholds.review, thresholds.decline], scores, side="right")
    return [_DECISIONS[place] for place in places.tolist()]
