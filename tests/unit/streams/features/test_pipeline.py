"""The pipeline against the twins of its stages, over streams of several entities with labels."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.features.pipeline import Events, Labels, Pipeline
from streams.features.spec import (
    DAY,
    EVENT_TIME,
    HOUR,
    Aggregate,
    Derived,
    FeatureSet,
    Over,
    Stage,
    View,
    Window,
    windowed,
)
from streams.features.vector import assemble, merge_order
from streams.usecases import FRAUD
from tests.twin import Record, Twin, agree
from tests.unit.streams.features.drawn import OF_EVENTS

drawn = settings(deadline=None, max_examples=100)

SHORT, LONG = Window("s", 5), Window("l", 20)


def every(prefix, aggregates=OF_EVENTS):
    return tuple(feature for a in aggregates for feature in windowed(f"{prefix}_{a.name}", a, SHORT, LONG))


SMALL = FeatureSet(
    values=("amount",),
    stages=(
        Stage("card", "card_id", (View(Over.EVENTS, "amount", every("card")),)),
        Stage(
            "shop",
            "shop_id",
            (View(Over.EVENTS, "amount", every("shop")), View(Over.LABELS, "", every("known", Aggregate))),
        ),
    ),
    derived=(
        Derived("rate", lambda columns: columns["card_SUM_l"] / (columns["known_COUNT_l"] + 1)),
        Derived("rate_and_time", lambda columns: columns["rate"] + columns[EVENT_TIME]),
    ),
    lateness=10,
)


@st.composite
def histories(draw, entities, most=60, span=60, unit=1):
    """Events (time, id, keys, amount) in any order but the stream's, and their labels, each some time later."""
    keys = st.fixed_dictionaries({entity: st.sampled_from([b"1", b"2", b"3"]) for entity in entities})
    event = st.tuples(st.integers(0, span).map(lambda t: t * unit), keys, st.floats(0.01, 1e6))
    rows = draw(st.lists(event, max_size=most))
    numbers = draw(st.lists(st.integers(0, 999), min_size=len(rows), max_size=len(rows), unique=True))
    events = [(time, b"e%03d" % number, *rest) for number, (time, *rest) in zip(numbers, rows, strict=True)]
    delayed = st.tuples(st.integers(0, span // 2).map(lambda t: t * unit), st.sampled_from([0.0, 1.0]))
    labels = [
        (time + delay, event_id, keys, label)
        for time, event_id, keys, _ in events
        if draw(st.booleans())
        for delay, label in [draw(delayed)]
    ]
    return sorted(events, key=lambda row: row[0]), sorted(labels, key=lambda row: row[0])


def columns(cls, rows, entities):
    times, values = np.array([row[0] for row in rows], np.int64), np.array([row[3] for row in rows], np.float64)
    keys = {entity: [row[2][entity] for row in rows] for entity in entities}
    return cls([row[1] for row in rows], times, keys, values.reshape(-1, 1) if cls is Events else values)


def fold(pipeline, events, labels, boundaries=()):
    """Fold the history in slices of stream time; a slice ends before each of the boundaries."""
    entities = [stage.entity for stage in pipeline.features.stages]
    bounds = [-np.inf, *sorted(boundaries), np.inf]
    slices = [
        pipeline.fold(*(
            columns(cls, [row for row in rows if lo <= row[0] < hi], entities)
            for cls, rows in ((Events, events), (Labels, labels))
        ))
        for lo, hi in pairwise(bounds)
    ]  # fmt: skip
    return np.vstack(slices)


def staged_by_twins(features, events, labels):
    """Each event's staged features by name: event by event in plain Python, by the twins of the stages."""
    staged = [dict[str, float]() for _ in events]
    for at, stage in enumerate(features.stages):
        # Time, then labels before events, then event id; the first stage sees events alone, in the file's order.
        rows = [
            ((time, 1, event_id), row, keys, (amount, 0.0)) for row, (time, event_id, keys, amount) in enumerate(events)
        ]
        if at > 0:
            rows += [((time, 0, event_id), None, keys, (0.0, label)) for time, event_id, keys, label in labels]
            rows.sort(key=lambda row: row[0])
        twin = Twin(stage, features)
        for (time, is_event, _), row, keys, values in rows:
            found = twin.fold(Record(keys[stage.entity], Over.EVENTS if is_event else Over.LABELS, time, values))
            if row is not None:
                staged[row] |= found
    return staged


def check_against_twins(features, events, labels):
    vectors = fold(Pipeline(features), events, labels)
    assert vectors.shape == (len(events), len(features.names))
    for vector, event, slow in zip(vectors, events, staged_by_twins(features, events, labels), strict=True):
        fast = dict(zip(features.names, vector.tolist(), strict=True))
        assert fast["amount"] == event[3]
        for stage in features.stages:
            ours, theirs = ({name: found[name] for name in stage.names} for found in (fast, slow))
            assert agree(stage, ours, theirs), f"{event}\n fast {ours}\n slow {theirs}"


@drawn
@given(histories(["card", "shop"]))
def test_the_pipeline_agrees_with_the_twins(history):
    """Every windowed feature of every event, over both entities, ties and late labels."""
    check_against_twins(SMALL, *history)


@settings(drawn, max_examples=40)
@given(histories(["customer", "terminal"], most=40, span=40 * 8, unit=3 * HOUR))
def test_fraud_agrees_with_the_twins(history):
    """The same for the feature set of card fraud, over forty days."""
    check_against_twins(FRAUD.features, *history)


@drawn
@given(histories(["card", "shop"]), st.lists(st.integers(0, 90), max_size=6))
def test_slices_do_not_matter(history, boundaries):
    """Cut at any times, some slices empty: the vectors and the states are the same, bit for bit."""
    whole, sliced = Pipeline(SMALL), Pipeline(SMALL)
    assert fold(whole, *history).tobytes() == fold(sliced, *history, boundaries).tobytes()
    assert [table.states() for table in whole.tables] == [table.states() for table in sliced.tables]


@drawn
@given(histories(["card", "shop"]), st.randoms(use_true_random=False))
def test_how_labels_are_handed_in_does_not_matter(history, random):
    """Labels of one time may come in any order from their partitions."""
    events, labels = history
    shuffled = random.sample(labels, len(labels))
    one, other = (fold(Pipeline(SMALL), events, each) for each in (labels, shuffled))
    assert one.tobytes() == other.tobytes()


def test_a_label_comes_before_an_event_of_the_same_time():
    """A label that becomes known at t is a feature of the shop's event at t, whichever has the smaller id."""
    keys = {"card": b"1", "shop": b"1"}
    for label_id in (b"a", b"z"):
        vector = fold(Pipeline(SMALL), [(10, b"m", keys, 5.0)], [(10, label_id, keys, 1.0)])
        assert vector[0][SMALL.names.index("known_COUNT_s")] == 1


def test_no_events_are_no_vectors():
    """A slice of labels alone updates the shops and returns no row."""
    keys = {"card": b"1", "shop": b"1"}
    pipeline = Pipeline(SMALL)
    assert fold(pipeline, [], [(10, b"a", keys, 1.0)]).shape == (0, len(SMALL.names))
    assert [len(table) for table in pipeline.tables] == [0, 1]


def test_merge_order_is_time_then_labels_then_id():
    """As a table: (time, kind, id) in the order in which they are folded."""
    rows = [
        (1, Over.EVENTS, b"z"),
        (2, Over.LABELS, b"b"),
        (2, Over.LABELS, b"c"),
        (2, Over.EVENTS, b"a"),
        (2, Over.EVENTS, b"aa"),
        (2, Over.EVENTS, b"b"),
        (3, Over.LABELS, b"a"),
    ]
    for shift in range(len(rows)):
        assert merged(rows[shift:] + rows[:shift]) == rows


ids = st.binary(max_size=3) | st.sampled_from([b"", b"\x00", b"a", b"a\x00", b"\xff"])


@drawn
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(Over), ids), max_size=20))
def test_merge_order_is_that_of_plain_sorting(rows):
    """Any rows: what Python's own sorting says, and where rows are equal the order they came in."""
    assert merged(rows) == sorted(rows, key=lambda row: (row[0], -row[1], row[2]))


def merged(rows):
    times, kinds = np.array([row[0] for row in rows], np.int64), np.array([row[1] for row in rows], np.int8)
    return [rows[at] for at in merge_order(times, kinds, [row[2] for row in rows])]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_derived_feature_that_is_not_finite_is_zero(bad):
    """No model ever sees a NaN or an infinity; a feature derived of it sees the 0 as well."""
    features = FeatureSet(
        values=("amount",),
        stages=(SMALL.stages[0],),
        derived=(
            Derived("bad", lambda columns: np.full_like(columns["amount"], bad)),
            Derived("next", lambda columns: columns["bad"] + 1),
        ),
    )
    vector = assemble(features, np.array([DAY]), np.array([[3.0, 9.0]]), [np.ones((1, len(features.stages[0].names)))])
    assert vector.tolist() == [[3.0, *[1.0] * len(features.stages[0].names), 0.0, 1.0]]


def test_a_derived_feature_sees_what_is_before_it():
    """Values, staged features, earlier derived ones and the event's time, by name."""
    vector = assemble(
        SMALL,
        np.array([7, 8]),
        np.array([[1.0], [2.0]]),
        [np.full((2, len(stage.names)), at + 1.0) for at, stage in enumerate(SMALL.stages)],
    )
    by_name = dict(zip(SMALL.names, vector.T.tolist(), strict=True))
    assert by_name["amount"] == [1.0, 2.0]
    assert by_name["rate"] == [1 / 3, 1 / 3]
    assert by_name["rate_and_time"] == [1 / 3 + 7, 1 / 3 + 8]
