"""A table and its store: what is to be written, what may leave the memory, what comes back."""

from hypothesis import given
from hypothesis import strategies as st

from streams.features.spec import Over
from tests.twin import Record
from tests.unit.streams.features.drawn import cuts, feature_sets, streams
from tests.unit.streams.features.folding import fold, taken
from tests.unit.streams.features.tables import RECORDS, drawn, reloaded, table_of


@drawn
@given(feature_sets(), streams(), streams(max_size=15), cuts())
def test_a_restart_changes_nothing(features, before, after, at):
    """State that went to the store and back has the same bytes and gives the same features, bit for bit."""
    table = table_of(features, before)
    again = reloaded(table, features)
    assert again.states() == table.states()
    assert fold(again, after, at).tobytes() == fold(table, after).tobytes()
    assert again.states() == table.states()


def test_dirty_is_what_changed_since_it_was_taken():
    """Each entity changed is given once, with the bytes it has now."""
    table = table_of(records=RECORDS)
    assert dict(taken(table)) == table.states()
    assert taken(table) == []
    fold(table, [Record(b"y", Over.EVENTS, 40, (1.0, 1.0, 0.0))] * 2)
    assert taken(table) == [(b"y", table.states()[b"y"])]


def test_a_record_too_late_makes_nothing_dirty():
    """State that has not changed is not written."""
    table = table_of(records=RECORDS)
    taken(table)
    fold(table, [Record(b"y", kind, -100, (1.0, 1.0, 0.0)) for kind in Over])
    assert taken(table) == []


def test_marked_dirty_is_given_again():
    """What did not reach the store is written with the next checkpoint, with the changes since."""
    table = table_of(records=RECORDS)
    keys = [key for key, _ in taken(table)]
    fold(table, [Record(b"x", Over.EVENTS, 40, (1.0, 1.0, 0.0))])
    table.mark_dirty(keys)
    assert dict(taken(table)) == table.states()


def keep_all(table):
    """A store that has every state of the table now."""
    taken(table)
    return table.states()


@drawn
@given(streams(), st.lists(st.tuples(streams(max_size=8), st.integers(0, 4)), max_size=6))
def test_eviction_changes_nothing(before, rounds):
    """An entity that left the memory and came back is as one that stayed, bit for bit, whatever is evicted when."""
    stayed, evicting, store = table_of(records=before), table_of(records=before), {}
    for records, limit in rounds:
        store |= keep_all(evicting)
        assert evicting.evict(limit) == max(0, len(stayed) - limit)
        assert len(evicting) == min(limit, len(stayed))
        for key in evicting.missing(record.key for record in records):
            if key in store:
                evicting.load(key, store[key])
        assert fold(evicting, records).tobytes() == fold(stayed, records).tobytes()
        store |= keep_all(evicting)
        for key in evicting.missing(stayed.states()):
            evicting.load(key, store[key])
    assert evicting.states() == stayed.states()


def test_what_the_store_does_not_have_stays():
    """Only clean entities are evicted."""
    table = table_of(records=RECORDS)
    assert (table.evict(0), table.evicted) == (0, False)
    taken(table)
    fold(table, [Record(b"y", Over.EVENTS, 40, (1.0, 1.0, 0.0))])
    assert (table.evict(0), table.evicted, b"y" in table) == (1, True, True)
    taken(table)
    table.mark_dirty([b"y"])
    assert table.evict(0) == 0
    assert [key for key, _ in taken(table)] == [b"y"]
    assert (table.evict(0), len(table), table.states()) == (1, 0, {})


def test_the_least_recently_used_leaves_first():
    """What was folded or loaded last stays."""
    table = table_of()
    for at, key in enumerate((b"a", b"b", b"c", b"a", b"d", b"c")):
        fold(table, [Record(key, Over.EVENTS, at, (1.0, 1.0, 0.0))])
    kept = keep_all(table)
    assert table.evict(2) == 2
    assert sorted(table.states()) == [b"c", b"d"]
    table.load(b"b", kept[b"b"])
    assert table.evict(2) == 1
    assert sorted(table.states()) == [b"b", b"c"]


def test_memory_follows_what_is_left():
    """A million entities that come and go, a thousand at a time in memory, need the room of thousands."""
    table = table_of()
    for batch in range(100):
        fold(
            table,
            [Record(b"%d" % key, Over.EVENTS, 1, (1.5, 1.0, 0.0)) for key in range(batch * 1000, 1000 + batch * 1000)],
        )
        taken(table)
        table.evict(1000)
    assert (len(table), len(table.memory._keys)) == (1000, 2000)
    assert table.memory._arena.times.size <= 1 << 16  # nothing public says it


def test_a_loaded_entity_is_clean():
    """What comes from the store is there already."""
    table = reloaded(table_of(records=RECORDS))
    assert taken(table) == []


def test_loading_again_takes_the_stores_word():
    """A second load of an entity replaces what was folded in between, which is then not dirty."""
    table = table_of(records=RECORDS)
    kept = table.states()[b"x"]
    fold(table, [Record(b"x", Over.EVENTS, 40, (1.0, 1.0, 0.0))])
    taken(table)
    fold(table, [Record(b"x", Over.EVENTS, 41, (1.0, 1.0, 0.0))])
    table.load(b"x", kept)
    assert table.states()[b"x"] == kept
    assert taken(table) == []
