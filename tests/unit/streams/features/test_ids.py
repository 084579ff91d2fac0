"""Events that a producer sends twice: folded once, by their ids, within the horizon that is stated."""

from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.features.ids import hashes
from streams.features.kernel import HORIZON, MOST_IDS
from streams.features.pipeline import Events, Labels, Pipeline
from streams.features.spec import HOUR, MINUTE
from streams.features.table import EntityTable
from streams.usecases import FRAUD
from tests.unit.streams.features.folding import taken

drawn = settings(deadline=None, max_examples=100)

CUSTOMER, TERMINAL = FRAUD.features.stages
NO_LABELS = Labels([], np.empty(0, np.int64), {"customer": [], "terminal": []}, np.empty(0))


def table_of(stage=CUSTOMER):
    return EntityTable(stage, FRAUD.features)


def fold_once(table, rows):
    """Fold (key, id, minute, amount) rows; return features and which are new."""
    keys, ids, minutes, amounts = [list(column) for column in zip(*rows, strict=True)] if rows else [[]] * 4
    times = np.array(minutes, np.int64) * MINUTE
    values = np.array([[amount, 0.0] for amount in amounts]).reshape(-1, 2)
    return table.fold_once(ids, keys, np.zeros(len(rows), np.int8), times, values)


def events_of(rows):
    keys, ids, minutes, amounts = [list(column) for column in zip(*rows, strict=True)] if rows else [[]] * 4
    values = np.array(amounts, float).reshape(-1, 1)
    return Events(ids, np.array(minutes, np.int64) * MINUTE, {"customer": keys, "terminal": [b"t"] * len(ids)}, values)


def told_apart(rows):
    """Which rows are new, the slow way: look through all that was folded within an hour of the entity's newest."""
    folded, fresh = defaultdict(list), []
    for key, id_, minute, _ in rows:
        seen = folded[key]
        newest = max([minute, *(time for time, _ in seen)])
        new = all(other != id_ for time, other in seen if (newest - time) * MINUTE < HORIZON)
        fresh.append(new)
        if new:
            seen.append((minute, id_))
    return fresh


def rows_of(most=30):
    row = st.tuples(
        st.sampled_from([b"1", b"2"]),
        st.sampled_from([b"a", b"b", b"c", b"", "д".encode()]),
        st.integers(0, 20).map(lambda ten: ten * 10),
        st.sampled_from([1.0, 2.5]),
    )
    return st.lists(row, max_size=most)


@drawn
@given(rows_of(), st.integers(0, 30))
def test_an_event_sent_twice_is_folded_once(rows, cut):
    """Whatever the order and the batches: what is new is folded as if the rest had never come."""
    table, alone = table_of(), table_of()
    parts = [fold_once(table, rows[:cut]), fold_once(table, rows[cut:])]
    features, fresh = (np.concatenate(column) for column in zip(*parts, strict=True))
    assert fresh.tolist() == told_apart(rows)
    new = [row for row, is_new in zip(rows, fresh, strict=True) if is_new]
    expected, _ = fold_once(alone, new)
    assert features[fresh].tobytes() == expected.tobytes()
    assert not features[~fresh].any()
    assert table.states() == alone.states()


@drawn
@given(rows_of(), rows_of())
def test_a_restart_forgets_no_id(before, after):
    """What the store gives back tells repeated events as the memory before did."""
    table, again = table_of(), table_of()
    fold_once(table, before)
    for key, state in table.states().items():
        again.load(key, state)
    kept, loaded = fold_once(table, after), fold_once(again, after)
    assert kept[1].tolist() == loaded[1].tolist()
    assert kept[0].tobytes() == loaded[0].tobytes()
    assert table.states() == again.states()


@drawn
@given(rows_of())
def test_a_repeated_event_goes_no_further(rows):
    """Its row is NaN, and no later stage has folded it."""
    pipeline, alone = Pipeline(FRAUD.features), Pipeline(FRAUD.features)
    rows.sort(key=lambda row: row[2])
    vectors = pipeline.fold(events_of(rows), NO_LABELS)
    fresh = np.array(told_apart(rows), bool)
    assert np.isnan(vectors[~fresh]).all()
    expected = alone.fold(events_of([row for row, new in zip(rows, fresh, strict=True) if new]), NO_LABELS)
    assert vectors[fresh].tobytes() == expected.tobytes()
    for one, other in zip(pipeline.tables, alone.tables, strict=True):
        assert one.states() == other.states()


def test_the_horizon_is_an_hour_of_event_time():
    """
    An id is remembered until its entity has an event an hour younger.

        a ........ 59 min ......... a    told
        a ........ 60 min ........... a  not told
    """
    for minutes, new in ((59, False), (60, True)):
        _, fresh = fold_once(table_of(), [(b"k", b"a", 0, 1.0), (b"k", b"b", minutes, 1.0), (b"k", b"a", 0, 1.0)])
        assert fresh.tolist() == [True, True, new]


def test_no_more_ids_are_kept_than_stated():
    """Of an entity with more events in the hour the newest ids are told, and its state is bounded."""
    ids = [b"%d" % number for number in range(MOST_IDS + 10)]
    table = table_of()
    fold_once(table, [(b"k", id_, 0 if at < 10 else 1, 1.0) for at, id_ in enumerate(ids)])
    _, fresh = fold_once(table, [(b"k", id_, 1, 1.0) for id_ in ids[10:]])
    assert not fresh.any()
    _, fresh = fold_once(table, [(b"k", id_, 1, 1.0) for id_ in ids[:10]])
    assert fresh.all()


def test_only_the_first_stage_remembers():
    """A terminal's events have passed their customer, who remembers their ids."""
    row = (b"k", b"a", 0, 1.0)
    assert fold_once(table_of(TERMINAL), [row, row])[1].all()
    assert not fold_once(table_of(CUSTOMER), [row, row])[1].all()


def test_a_repeated_event_makes_nothing_dirty():
    """State that has not changed is not written."""
    table = table_of()
    fold_once(table, [(b"k", b"a", 0, 1.0)])
    taken(table)
    fold_once(table, [(b"k", b"a", 0, 1.0)])
    assert taken(table) == []


def test_ids_cost_a_state_little():
    """A customer whose newest event is alone in its hour keeps that one's id: 32 bytes."""
    with_ids, without = table_of(), table_of()
    rows = [(b"k", b"%d" % day, day * 24 * 60, 1.5) for day in range(31)]
    fold_once(with_ids, rows)
    keys, _, minutes, amounts = zip(*rows, strict=True)
    values = np.array([[amount, 0.0] for amount in amounts])
    without.fold(list(keys), np.zeros(31, np.int8), np.array(minutes) * MINUTE, values)
    assert len(with_ids.states()[b"k"]) - len(without.states()[b"k"]) == 24
    assert HORIZON == HOUR


def test_hashes_are_whole_numbers_that_differ():
    """They fit a float64 exactly, are the same in every process, and no two of so many ids share one."""
    found = hashes([b"event-%d" % number for number in range(200_000)])
    assert len(np.unique(found)) == 200_000
    assert (found == np.floor(found)).all()
    assert found.max() < 2**53
    assert hashes([b"", b"a"]).tolist() == hashes([b"", b"a"]).tolist()
    assert hashes([]).size == 0
