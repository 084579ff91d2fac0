"""A campaign is its seed: the same one sends the same records and does the same things."""

import random
from itertools import pairwise

import numpy as np
import pytest

from schemas.codec import Decoder, Poison
from schemas.events import Label, Transaction
from tests.chaos.faults import CAMPAIGN, DOWN, UP, WIPE, schedule
from tests.chaos.found import Scores
from tests.chaos.pauses import longest_pauses, rate
from tests.chaos.workload import EVENT_POISON, LABEL_POISON, NO_WATERMARK, Kind, Workload, number_of

BEGIN = 1_700_000_000_000
WORKLOAD = Workload(1, 100.0, 60.0, BEGIN)


def test_a_seed_is_a_workload() -> None:
    """Two of the same seed are the same to the byte, another seed's is another."""
    again, other = Workload(1, 100.0, 60.0, BEGIN), Workload(2, 100.0, 60.0, BEGIN)
    some = np.arange(100)
    assert WORKLOAD.event_values(some) == again.event_values(some) != other.event_values(some)
    assert [column.tolist() for column in WORKLOAD.sends] == [column.tolist() for column in again.sends]
    assert [WORKLOAD.label(at) for at in range(9)] == [again.label(at) for at in range(9)]


def test_each_event_is_sent_once_and_repeated_later() -> None:
    """In order of time; a repeat and a label come after their event, second labels after the first."""
    due, kinds, index = WORKLOAD.sends
    assert all(one <= other for one, other in pairwise(due.tolist()))
    assert index[kinds == Kind.EVENT].tolist() == list(range(WORKLOAD.events))
    sent = due[kinds == Kind.EVENT]
    repeats, labels = kinds == Kind.REPEAT, (kinds == Kind.LABEL) & (index < WORKLOAD.labelled.size)
    assert 0 < repeats.sum() < 0.02 * WORKLOAD.events
    assert (due[repeats] > sent[index[repeats]]).all()
    assert (due[labels] > sent[WORKLOAD.labelled[index[labels]]]).all()
    at = dict(zip(index[kinds == Kind.LABEL].tolist(), due[kinds == Kind.LABEL].tolist(), strict=True))
    assert WORKLOAD.doubted.size > 2
    for number, first in enumerate(WORKLOAD.doubted.tolist()):
        (key, one), (other_key, other) = WORKLOAD.label(first), WORKLOAD.label(WORKLOAD.labelled.size + number)
        assert at[WORKLOAD.labelled.size + number] > at[first]
        assert key == other_key
        assert (one == other) == (number % 2 == 0)


def test_sound_events_are_sound() -> None:
    """What is not sent as poison is none."""
    decode = Decoder(Transaction, "event_time")
    for number, value in enumerate(WORKLOAD.event_values(np.arange(500))):
        assert number_of(decode(value, BEGIN + 60_000).event_id) == number
    for at in [*range(20), WORKLOAD.labelled.size + 1]:
        Decoder(Label, "label_time")(WORKLOAD.label(at)[1], BEGIN + 70_000)


@pytest.mark.parametrize("index", range(len(EVENT_POISON)), ids=EVENT_POISON)
def test_every_kind_of_poison_is_poison(index: int) -> None:
    """And for the reason it says; a wrong key and a false watermark are sound in themselves, but for their record."""
    reason, key, value = WORKLOAD.poison_event(index)
    if value == NO_WATERMARK:
        return
    if reason == "wrong_key":
        assert Decoder(Transaction, "event_time")(value, BEGIN + 60_000).customer_id.encode() != key
        return
    with pytest.raises(Poison) as poison:
        Decoder(Transaction, "event_time")(value, BEGIN + 86_400_000)
    assert poison.value.reason == reason


@pytest.mark.parametrize("index", range(len(LABEL_POISON)), ids=LABEL_POISON)
def test_every_kind_of_label_poison_is_poison(index: int) -> None:
    """An unknown event is known to be so by nobody but the join."""
    reason, _, value = WORKLOAD.poison_label(index)
    if reason == "unknown_event":
        assert number_of(Decoder(Label, "label_time")(value, BEGIN).event_id) == -1
        return
    with pytest.raises(Poison) as poison:
        Decoder(Label, "label_time")(value, BEGIN + 86_400_000)
    assert poison.value.reason == reason


@pytest.mark.parametrize("seed", range(20))
def test_faults_come_in_an_order_of_the_seed(seed: int) -> None:
    """All of them, within the time; workers grow before they shrink; a rebuild does not come last."""
    planned = schedule(CAMPAIGN, random.Random(seed), 15.0, 400.0)
    assert planned == schedule(CAMPAIGN, random.Random(seed), 15.0, 400.0)
    times, faults = [at for at, _ in planned], [fault for _, fault in planned]
    assert sorted(times) == times
    assert times[0] == 15.0
    assert times[-1] < 400.0
    assert sorted(fault.name for fault in faults) == sorted(fault.name for fault in CAMPAIGN)
    assert faults.index(UP) < faults.index(DOWN)
    assert faults.index(WIPE) <= len(faults) // 2


def test_a_pause_is_the_longest_time_without_a_new_score_in_some_partition() -> None:
    """The other partitions' scores do not hide it, and what came twice is not new."""
    #   s     1  2        9  10     partition 0
    #         1  2  3 … 9 10        partition 1
    #       fault ^                 the pause is 7 s
    one, two = [1000, 2000, 9000, 10_000], [1000 * second for second in range(1, 11)]
    at = np.array([*one, *two])
    partition = np.array([0] * len(one) + [1] * len(two))
    empty = np.zeros(at.size, np.uint64)
    scores = Scores(at, partition, empty, empty)
    assert longest_pauses(scores, [2.0, 9.5], 10.0) == [7.0, 1.0]
    assert rate(scores, 1.0, 3.0) == 2.0
