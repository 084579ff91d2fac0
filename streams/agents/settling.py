"""What a label changes, given what its event is already held to be: the rules of the join; pure.

All labels of an event stand in one partition of the label topic, keyed by its id, and are settled in their order.
"""

from enum import StrEnum
from hashlib import blake2b
from typing import Literal, NamedTuple

from schemas.events import Label
from streams.stores.history import KeptLabel, label_order


class Outcome(StrEnum):
    """What came of a label; only the first two are told to the stages and the learner."""

    FIRST = "first"
    CORRECTION = "correction"
    """Another label than the one before, known later, or said where that was assumed: the last one wins."""
    REPEAT = "repeat"
    """What is known already, said again."""
    OVERRULED = "overruled"
    """An assumption about an event of which somebody has said otherwise."""
    STALE = "stale"
    """Another label than the one before, but known earlier."""
    SETTLED = "settled"
    """Read a second time after a crash: all it led to is kept."""


class Settled(NamedTuple):
    """What came of a label, the row to write (None: nothing changes), and the weight and `corrects` of its example;
    without a weight there is none. The weight of a correction is that of what it corrects."""

    outcome: Outcome
    row: KeptLabel | None = None
    weight: float = 0.0
    corrects: Literal[0, 1] | None = None


def settle(label: Label, partition: int, offset: int, kept: KeptLabel | None, negatives_kept: float = 1.0) -> Settled:
    """Return what a label at a place of the label topic changes, after what is `kept` of its event.

    Of first negatives the share `negatives_kept` is learnt, each for those that are not; what was learnt is always
    corrected.

    >>> settle(Label("e", 9, 1), 0, 41, KeptLabel(Label("e", 5, 0, assumed=True), 0, 17)).corrects
    0
    """
    outcome = _outcome(label, partition, offset, kept)
    if outcome is Outcome.REPEAT and kept and label_order(label) > label_order(kept.label):
        return Settled(outcome, KeptLabel(label, partition, offset, kept.weight))
    if outcome not in (Outcome.FIRST, Outcome.CORRECTION):
        return Settled(outcome)
    if kept and kept.weight:
        return Settled(outcome, KeptLabel(label, partition, offset), kept.weight, kept.label.label)
    weight = weight_of(label.event_id, label.label, negatives_kept)
    return Settled(outcome, KeptLabel(label, partition, offset, weight), weight)


def _outcome(label: Label, partition: int, offset: int, kept: KeptLabel | None) -> Outcome:
    if kept is None:
        return Outcome.FIRST
    if kept.partition == partition and kept.offset is not None and kept.offset >= offset:
        return Outcome.SETTLED
    if label.label == kept.label.label:
        return Outcome.REPEAT
    if label_order(label) > label_order(kept.label):
        return Outcome.CORRECTION
    return Outcome.OVERRULED if label.assumed else Outcome.STALE


def weight_of(event_id: str, label: int, negatives_kept: float) -> float:
    """Return what the first label of an event is learnt with, 0 where it is not."""
    if label == 1:
        return 1.0
    return 1 / negatives_kept if sampled(event_id, negatives_kept) else 0.0


def sampled(event_id: str, share: float) -> bool:
    """Say whether an event is among the `share` (0 to 1] of all that is learnt; always the same of the same event.

    >>> sum(sampled(f"e{number}", 0.25) for number in range(10_000))
    2560
    """
    if share >= 1:
        return True
    return int.from_bytes(blake2b(event_id.encode(), digest_size=8).digest()) < share * 2**64
