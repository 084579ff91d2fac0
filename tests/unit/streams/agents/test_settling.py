"""What a label changes, against an obvious twin that remembers everything."""

from collections import Counter
from typing import Literal, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import Label
from streams.agents.settling import Outcome, sampled, settle
from streams.stores.history import KeptLabel, label_order, label_written_at

DAY = 86_400_000
BEGIN = 1_760_000_000_000


def said(label: Literal[0, 1], day: int) -> Label:
    return Label("e", BEGIN + day * DAY, label)


ASSUMED = Label("e", BEGIN + 7 * DAY, 0, assumed=True)


class Told(NamedTuple):
    """What the learner is told of a label."""

    label: int
    corrects: int | None


def play(labels: list[Label]) -> tuple[list[Outcome], list[Told], KeptLabel]:
    """Settle the labels of an event one after the other."""
    kept: KeptLabel | None = None
    outcomes, told = list[Outcome](), list[Told]()
    for offset, label in enumerate(labels):
        settled = settle(label, 0, offset, kept)
        outcomes.append(settled.outcome)
        kept = settled.row or kept
        if settled.weight:
            told.append(Told(label.label, settled.corrects))
    assert kept
    return outcomes, told, kept


@pytest.mark.parametrize(
    ("labels", "outcomes", "told"),
    [
        ([said(1, 3)], "first", [(1, None)]),
        ([said(1, 3), ASSUMED], "first overruled", [(1, None)]),
        ([said(0, 3), ASSUMED], "first repeat", [(0, None)]),
        ([ASSUMED, said(1, 9)], "first correction", [(0, None), (1, 0)]),
        ([ASSUMED, said(1, 2)], "first correction", [(0, None), (1, 0)]),  # known in time, but late to arrive
        ([ASSUMED, said(0, 9), said(1, 8)], "first repeat stale", [(0, None)]),
        ([said(1, 1), said(1, 1)], "first repeat", [(1, None)]),
        ([said(1, 1), said(0, 2), said(1, 3)], "first correction correction", [(1, None), (0, 1), (1, 0)]),
        ([said(1, 2), said(0, 1)], "first stale", [(1, None)]),
        ([said(1, 1), said(1, 5), said(0, 3)], "first repeat stale", [(1, None)]),
        ([said(0, 1), said(1, 1), said(0, 1)], "first correction stale", [(0, None), (1, 0)]),
    ],
)
def test_labels_of_one_event(labels: list[Label], outcomes: str, told: list[tuple[int, int | None]]) -> None:
    """The last one known wins, what was said beats what was assumed, and what is said again changes nothing."""
    found, learnt, _ = play(labels)
    assert " ".join(found) == outcomes
    assert learnt == told


some_labels = st.lists(
    st.builds(
        lambda day, label, assumed: Label("e", BEGIN + day * DAY, 0 if assumed else label, assumed),
        st.sampled_from([-20_370, -20_000, 0, 1, 2, 3, 4]),  # the first two in 1970, as who takes seconds for ms says
        st.sampled_from([0, 1]),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


@given(some_labels)
def test_it_is_as_if_every_label_were_remembered(labels: list[Label]) -> None:
    """After each label the event is what the best of all its labels so far says; the learner is told when that
    changes, and what it was told before."""
    expected = list[Told]()
    for number in range(1, len(labels) + 1):
        is_now = max(labels[:number], key=label_order).label
        if not expected or expected[-1].label != is_now:
            expected.append(Told(is_now, expected[-1].label if expected else None))
    _, told, kept = play(labels)
    assert told == expected
    assert label_order(kept.label) == max(map(label_order, labels))


@given(some_labels)
def test_a_store_keeps_what_the_join_does(labels: list[Label]) -> None:
    """A row written late, by a former owner, never covers a newer one: the order of write times is that of labels."""
    assert sorted(labels, key=label_order) == sorted(labels, key=label_written_at)


@given(some_labels, st.integers(0, 7))
def test_what_is_read_again_was_settled(labels: list[Label], again: int) -> None:
    """Of labels read again those up to the row's place are dropped, whatever they say; those after it lead to what
    they led to before."""
    kept: KeptLabel | None = None
    for offset, label in enumerate(labels):
        kept = settle(label, 0, offset, kept).row or kept
    assert kept
    for offset, label in list(enumerate(labels))[again:]:
        settled = settle(label, 0, offset, kept)
        if offset <= (kept.offset or 0):
            assert settled.outcome is Outcome.SETTLED
        else:
            assert settled.row is None
            assert not settled.weight


def test_the_same_place_of_another_partition_is_another_label() -> None:
    """Places are compared within a partition alone; a row without a place settles nothing."""
    kept = KeptLabel(said(0, 3), 1, 50)
    assert settle(said(1, 4), 0, 40, kept).outcome is Outcome.CORRECTION
    assert settle(said(1, 4), 0, 40, KeptLabel(said(0, 3), None, None)).outcome is Outcome.CORRECTION


def test_negatives_that_are_learnt_stand_for_all() -> None:
    """Of many negatives the given share is learnt, and their weights add up to all of them; positives always are."""
    ids = [f"e{number}" for number in range(20_000)]
    weights = Counter(settle(Label(one, BEGIN, 0), 0, 0, None, 0.1).weight for one in ids)
    assert weights.keys() == {0.0, 10.0}
    assert weights[10.0] * 10 == pytest.approx(len(ids), rel=0.06)  # 3 standard deviations
    assert {settle(Label(one, BEGIN, 1), 0, 0, None, 0.1).weight for one in ids} == {1.0}
    assert all(sampled(one, 0.2) for one in ids if sampled(one, 0.1))


@pytest.mark.parametrize("left_out", [True, False])
def test_what_was_learnt_is_taken_back_with_its_weight(left_out: bool) -> None:
    """A correction has the weight of what it corrects, and its own label counts as 1; a positive after a negative that
    was left out corrects nothing, a negative after a positive always does."""
    event = next(f"e{number}" for number in range(100) if sampled(f"e{number}", 0.1) != left_out)
    kept, told = None, list[tuple[float, int | None]]()
    for offset in range(4):
        settled = settle(Label(event, BEGIN + offset, 1 if offset % 2 else 0), 0, offset, kept, 0.1)
        kept = settled.row
        told.append((settled.weight, settled.corrects))
    first = [(0.0, None), (1.0, None)] if left_out else [(10.0, None), (10.0, 0)]
    assert told == [*first, (1.0, 1), (1.0, 0)]
