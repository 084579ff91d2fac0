"""Windows as drawn: which records the trailing window (t - W, t] holds, and what each aggregate says of them."""

import math

import numpy as np
import pytest

from streams.features.spec import BY_LABEL, Aggregate, FeatureSet, Over, Stage, View, Window, Windowed
from streams.features.table import EntityTable

COUNT, SUM, MEAN, STD, MAX, SINCE, SINCE_POSITIVE, SINCE_NEGATIVE = Aggregate
W = 10


def fold(records, *aggregates, window=W, lateness=5):
    """Fold (time, amount) or (time, "label", 0 | 1) of one entity; return the last record's features."""
    aggregates = aggregates or tuple(Aggregate)
    events = tuple(Windowed(a.name, a, Window("w", window)) for a in aggregates if a not in BY_LABEL)
    labels = tuple(Windowed(f"label_{a.name}", a, Window("w", window)) for a in aggregates)
    stage = Stage("card", "card_id", (View(Over.EVENTS, "amount", events), View(Over.LABELS, "", labels)))
    plain = Stage("plain", "plain_id", (View(Over.EVENTS, "amount", (Windowed("n", COUNT, Window("w", 1)),)),))
    table = EntityTable(stage, FeatureSet(("amount",), (plain, stage), (), lateness))
    kinds = np.array([Over.LABELS if len(r) == 3 else Over.EVENTS for r in records], np.int8)
    values = np.array([[0.0, r[2]] if len(r) == 3 else [r[1], 0.0] for r in records], np.float64)
    times = np.array([r[0] for r in records], np.int64)
    folded = table.fold([b"card"] * len(records), kinds, times, values)
    return dict(zip(stage.names, folded[-1].tolist(), strict=True))


def test_the_window_holds_its_end_and_not_its_beginning():
    """The event at t counts, one at t - W does not, one a millisecond later does.

    #                 t = 20
    #     (----------]
    #     a b        c        holds b, c; a lies on the open edge
    """
    features = fold([(10, 1.0), (11, 2.0), (20, 4.0)])
    assert features["COUNT"] == 2
    assert features["SUM"] == 6.0
    assert features["MEAN"] == 3.0
    assert features["STD"] == 1.0
    assert features["MAX"] == 4.0
    assert features["SINCE"] == 0.009


def test_a_first_event_is_alone_in_its_window():
    """It counts itself; nothing came before it, so SINCE is the window's length.

    #                 t = 20
    #     (----------]
    #                a
    """
    assert fold([(20, 4.0)]) == pytest.approx(
        {"COUNT": 1, "SUM": 4, "MEAN": 4, "STD": 0, "MAX": 4, "SINCE": 0.010}
        | dict.fromkeys(("label_COUNT", "label_SUM", "label_MEAN", "label_STD", "label_MAX"), 0)
        | dict.fromkeys(("label_SINCE", "label_SINCE_POSITIVE", "label_SINCE_NEGATIVE"), 0.010),
        abs=0,
    )


def test_an_empty_window_of_labels():
    """An event brings no label: with none in the window each aggregate is 0, and SINCE the window's length.

    #                 t = 20
    #     (----------]
    #     L          e         the label lies on the open edge
    """
    features = fold([(10, "label", 1.0), (20, 4.0)])
    empty = {"label_COUNT": 0, "label_SUM": 0, "label_MEAN": 0, "label_STD": 0, "label_MAX": 0, "label_SINCE": 0.010}
    assert {name: features[name] for name in empty} == empty


def test_a_label_at_the_events_time_is_known_to_it():
    """What became known at t is known at t; SINCE the newest label is then 0.

    #                 t = 20
    #     (----------]
    #      L    L    L e
    """
    features = fold([(11, "label", 0.0), (15, "label", 0.0), (20, "label", 1.0), (20, 4.0)])
    assert features["label_COUNT"] == 3
    assert features["label_MEAN"] == pytest.approx(1 / 3, rel=1e-15)
    assert features["label_MAX"] == 1
    assert features["label_SINCE"] == 0
    assert features["COUNT"] == 1, "a label is no event"


def test_labels_are_told_apart():
    """The newest fraud and the newest legitimate label by t, each as long ago as it is; of none, the window's length.

    #                 t = 20
    #     (----------]
    #      1    0 1  e  0
    """
    features = fold([(11, "label", 1.0), (15, "label", 0.0), (17, "label", 1.0), (21, "label", 0.0), (20, 4.0)])
    assert (features["label_SINCE_POSITIVE"], features["label_SINCE_NEGATIVE"]) == (0.003, 0.005)
    assert fold([(17, "label", 1.0), (20, 4.0)])["label_SINCE_NEGATIVE"] == 0.010


def test_only_labels_are_told_apart():
    """An amount is no label: a view over events cannot ask for it."""
    events = View(Over.EVENTS, "amount", (Windowed("f", SINCE_POSITIVE, Window("w", W)),))
    with pytest.raises(ValueError, match="only labels"):
        FeatureSet(("amount",), (Stage("card", "card_id", (events,)),), ())


def test_ties_see_those_that_came_before():
    """Events of the same time see each other in the order they came, SINCE an earlier tie is 0.

    #                 t = 20
    #     (----------]
    #                a b c
    """
    assert [fold([(20, 1.0)] * n)["COUNT"] for n in (1, 2, 3)] == [1, 2, 3]
    assert fold([(20, 1.0), (20, 3.0)], SINCE, MEAN)["SINCE"] == 0
    assert fold([(20, 1.0), (20, 3.0)])["MEAN"] == 2


def test_an_event_out_of_order_does_not_see_its_future():
    """An event that comes late is read as of its own time; and the next one in time sees it.

    #            t = 20   24
    #     (----------]
    #      a         c     b      came as a, b, c
    """
    features = fold([(11, 1.0), (24, 8.0), (20, 2.0)])
    assert (features["COUNT"], features["SUM"], features["MAX"], features["SINCE"]) == (2, 3, 2, 0.009)
    assert fold([(11, 1.0), (24, 8.0), (20, 2.0), (24, 16.0)])["SUM"] == 26


def test_lateness_keeps_a_late_events_window_whole():
    """As late as the lateness (5), every record of the event's window is still there.

    #            t = 20   25
    #     (----------]
    #      a         c     b      came as a, b, c
    """
    assert fold([(11, 1.0), (25, 8.0), (20, 2.0)])["COUNT"] == 2
    assert fold([(11, 1.0), (26, 8.0), (20, 2.0)])["COUNT"] == 1, "a is forgotten: 26 - 11 = W + lateness"


def test_an_event_later_than_all_that_is_kept_sees_nothing():
    """Later than window and lateness together an event is not even kept itself.

    #   t = 20                 35
    #   c                      b      came as b, c
    """
    features = fold([(35, 8.0), (20, 2.0)])
    assert (features["COUNT"], features["SUM"], features["SINCE"]) == (0, 0, 0.010)
    assert fold([(35, 8.0), (21, 2.0)])["COUNT"] == 1
    assert fold([(35, 8.0), (20, 2.0), (35, 1.0)])["SUM"] == 9, "and leaves no trace"


def test_refunds_have_a_largest_too():
    """The largest of negative values is negative, not the 0 of an empty window."""
    assert fold([(1, -5.0), (2, -3.0)])["MAX"] == -3


def test_since_reaches_no_further_than_its_window():
    """An earlier event at or beyond the window's edge is as good as none."""
    assert fold([(10, 1.0), (20, 1.0)])["SINCE"] == 0.010
    assert fold([(8, 1.0), (20, 1.0)])["SINCE"] == 0.010
    assert fold([(11, 1.0), (20, 1.0)])["SINCE"] == 0.009


@pytest.mark.parametrize("amount", [0.1, 1234.56, 1e6 + 0.1, 1e12 - 0.07])
def test_the_same_amount_again_and_again_has_no_spread(amount):
    """The standard deviation of equal values is 0, whatever their size."""
    assert fold([(time, amount) for time in range(9)])["STD"] == 0


@pytest.mark.parametrize("base", [0.0, 1e3, 1e6, 1e9])
def test_a_small_spread_around_a_large_amount_is_seen(base):
    """The spread does not drown in the size of the values: base ± 0.25 has a standard deviation of 0.25."""
    assert fold([(1, base + 0.25), (2, base - 0.25)])["STD"] == pytest.approx(0.25, rel=1e-9)


def test_a_large_amount_that_left_the_window_leaves_nothing_behind():
    """Windows are read afresh, not kept by adding and subtracting: no rounding of what was stays.

    #                 t = 20
    #     (----------]
    #     a b        c           a = 1e12 is gone
    """
    features = fold([(10, 1e12), (11, 0.1), (20, 0.2)])
    assert features["SUM"] == math.fsum([0.1, 0.2])
