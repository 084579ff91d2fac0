"""The examples that the tests of lessons have a learner learn from, and all that it comes to by them."""

import msgspec
import numpy as np

from schemas.events import Example
from streams.models.lessons import Lessons
from tests.weights import weights

NAMES, FEATURES, KEY = ("amount", "count"), "0123456789abcdef", b"k" * 32
NOW = 1_700_000_000_000


def example(number: int, label_partition: int | None = 0, feature_set: str = FEATURES) -> Example:
    amount, count = np.random.default_rng(number).normal(size=2).tolist()
    return Example(
        event_id=f"e{number}",
        event_time=number,
        label_time=number,
        label=int(amount > 0.5),
        features={"amount": amount, "count": count},
        score=0.1,
        model_id="logistic@0",
        feature_set=feature_set,
        label_partition=label_partition,
        label_offset=None if label_partition is None else number,
    )


BOTH = ("logistic", "binned")
LENGTH = 420
BURST = range(300, 340)


def lively(number: int) -> Example:
    """First the challenger's score is the better one, then the champion's; labels of a burst are turned round."""
    one = example(number, number % 2)
    right, rng = one.label * 0.9 + 0.05, np.random.default_rng(number)
    close, far = right + rng.normal(0, 0.02), 0.5 + rng.normal(0, 0.02)
    ours, theirs = (far, close) if number < 180 else (close, far)
    label = 1 - one.label if number in BURST else one.label
    corrects = 1 - label if number % 50 == 7 else None
    return msgspec.structs.replace(one, label=label, score=ours, shadow={"binned": theirs}, corrects=corrects)


LIVELY = [lively(number) for number in [*range(200), *range(150, LENGTH)]]


def content(lessons: Lessons) -> tuple[object, ...]:
    """All that the lessons have come to."""
    learners = [
        (weights(one.model), one.calibrator.to_array().tobytes(), one.guard, one.model_id, one.examples_learnt)
        for one in lessons.learners.values()
    ]
    return learners, lessons.offsets, lessons.seen.to_bytes(), lessons.progressive.to_bytes(), lessons.seat
