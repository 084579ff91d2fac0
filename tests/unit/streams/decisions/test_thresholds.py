"""Decisions: a threshold belongs to the stricter side."""

from math import nextafter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.decisions.thresholds import APPROVE, DECLINE, REVIEW, Thresholds, decide

#   0 ------- 0.2 -------- 0.6 ------- 1
#   approve   | review     | decline
AT = Thresholds(review=0.2, decline=0.6)


@pytest.mark.parametrize(
    ("score", "decision"),
    [
        (0.0, APPROVE),
        (nextafter(0.2, 0), APPROVE),
        (0.2, REVIEW),
        (nextafter(0.6, 0), REVIEW),
        (0.6, DECLINE),
        (1.0, DECLINE),
    ],
)
def test_a_threshold_is_reached_at_its_value(score: float, decision: str) -> None:
    """Exactly at a threshold the stricter decision is taken, a hair below the milder one."""
    assert decide(np.array([score]), AT) == [decision]


@given(st.lists(st.floats(0, 1)), st.floats(0, 1), st.floats(0, 1))
def test_decisions_are_the_comparisons(scores: list[float], one: float, other: float) -> None:
    """Whatever the thresholds, each score is decided by itself, as two comparisons would."""
    review, decline = sorted((one, other))
    expected = [DECLINE if score >= decline else REVIEW if score >= review else APPROVE for score in scores]
    assert decide(np.array(scores), Thresholds(review, decline)) == expected
