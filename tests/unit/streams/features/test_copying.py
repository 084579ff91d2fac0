"""A copy has every entity as it was when the copy began, whatever is folded, loaded or dropped until it is complete."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.features.copying import COPYING
from streams.features.memory import EntityMemory
from streams.features.spec import Over
from streams.features.table import EntityTable
from tests.twin import Record
from tests.unit.streams.features.drawn import streams
from tests.unit.streams.features.folding import fold, taken
from tests.unit.streams.features.tables import FEATURES, RECORDS, STAGE, drawn, table_of


def payment(key: bytes, time: int = 50) -> Record:
    return Record(key, Over.EVENTS, time, (1.0, 1.0, 0.0))


@drawn
@given(streams(), streams(max_size=6), st.lists(st.tuples(streams(max_size=6), st.integers(1, 3)), max_size=6))
def test_a_copy_is_of_one_moment(before, since, rounds):
    """What it has is what the table had then and had not been copied before; what changed later comes with the next."""
    table = table_of(records=before)
    kept = dict(taken(table))
    fold(table, since)
    then, copied = table.states(), {}
    copy = table.copy()
    for records, most in rounds:
        copied |= dict(copy.take(most))
        fold(table, records)
    while piece := copy.take(2):
        copied |= dict(piece)
    assert kept | copied == then
    assert then | dict(taken(table)) == table.states()
    assert taken(table) == []


def test_a_copy_goes_on_whatever_is_copied_early():
    """Folding copies an entity early; each `take` has its own piece besides."""
    table = table_of(records=[payment(b"%d" % number) for number in range(10)])
    copy, sizes = table.copy(), []
    for _ in range(4):
        fold(table, [payment(b"9")])
        sizes.append(len(copy.take(3)))
    assert sizes == [4, 3, 3, 0]


def test_an_entity_is_copied_once():
    """However often it is in the batch that has it copied early."""
    table = table_of(records=RECORDS)
    copy = table.copy()
    fold(table, [payment(b"x")] * 3)
    taken_ = copy.take(100)
    assert len(taken_) == len(dict(taken_)) == len(table)


@pytest.mark.parametrize("time", [50, -1000])
def test_what_a_broken_off_copy_had_is_in_the_next(time):
    """What it had taken, what it had copied early, and what it had not come to; also where nothing changed since."""
    table = table_of(records=RECORDS)
    copy = table.copy()
    some = copy.take(1)
    fold(table, [payment(key, time) for key in table.states()])
    table.mark_dirty(key for key, _ in some)
    fold(table, [payment(key, time) for key in table.states()])
    assert dict(taken(table)) == table.states()


def test_nobody_copies_for_a_copy_that_is_over():
    """One that is complete, was given up, or whose table was cleared."""
    table = table_of(records=RECORDS)
    for end in (lambda: taken(table), lambda: table.mark_dirty([]), table.clear):
        table.copy()
        end()
        assert not table.memory.copies


def test_a_load_does_not_change_a_copy():
    """The state that an entity had when the copy began is copied before the store's takes its place."""
    table = table_of(records=RECORDS)
    then = table.states()
    fold(table, [payment(b"x")])
    changed, copy = table.states(), table.copy()
    table.load(b"x", then[b"x"])
    assert dict(copy.take(100)) == changed
    assert table.states() == then


def test_what_is_dropped_is_nobodys_copy():
    """A table that is cleared has nothing to copy, and who gets its slots next is not copied for it."""
    memory = EntityMemory(STAGE, FEATURES)
    leaving, staying = EntityTable(STAGE, FEATURES, memory), EntityTable(STAGE, FEATURES, memory)
    fold(leaving, [payment(b"a"), payment(b"b")])
    copy = leaving.copy()
    leaving.clear()
    fold(staying, [payment(b"c"), payment(b"d")])
    ours = staying.copy()
    assert copy.take(100) == []
    assert sorted(key for key, _ in ours.take(100)) == [b"c", b"d"]


def test_what_is_still_to_be_copied_is_not_evicted():
    """It is not in the store, nor on its way."""
    table = table_of(records=RECORDS)
    table.copy()
    assert (table.memory.marks == COPYING).any()
    assert table.evict(0) == 0
