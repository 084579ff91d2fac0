"""The table against its slow twin, and the state it keeps: bytes, order, refusals, room."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.features import statebytes
from streams.features.arena import USED
from streams.features.spec import Aggregate, FeatureSet, Over, Stage, View, Window, Windowed
from streams.features.table import EntityTable, StateRefused
from tests.twin import Record, Twin, agree
from tests.unit.streams.features.drawn import OF_EVENTS, PLAIN, VALUES, cuts, feature_sets, streams
from tests.unit.streams.features.folding import fold, rows, taken

# The kernel compiles in the first example, so no example has a deadline.
drawn = settings(deadline=None, max_examples=300)

WINDOWS = (Window("3ms", 3), Window("20ms", 20))
STAGE = Stage(
    "entity",
    "entity_id",
    (
        View(Over.EVENTS, "a", tuple(Windowed(f"a_{a.name}_{w.name}", a, w) for a in OF_EVENTS for w in WINDOWS)),
        View(Over.EVENTS, "b", (Windowed("b_sum", Aggregate.SUM, WINDOWS[1]),)),
        View(Over.LABELS, "", tuple(Windowed(f"label_{a.name}", a, WINDOWS[1]) for a in Aggregate)),
    ),
)
FEATURES = FeatureSet(VALUES, (PLAIN, STAGE), (), lateness=5)
RECORDS = [
    Record(key, kind, time, (time / 3, 7.0, float(time % 2)))
    for time in range(0, 30, 2)
    for key in (b"x", b"y")
    for kind in Over
]


def table_of(features=FEATURES, records=(), at=()):
    table = EntityTable(features.stages[1], features)
    fold(table, list(records), at)
    return table


def reloaded(table, features=FEATURES):
    """A new table that took every state from the store's bytes."""
    again = table_of(features)
    for key, state in table.states().items():
        again.load(key, state)
    return again


@drawn
@given(feature_sets(), streams(), cuts())
def test_the_table_agrees_with_its_twin(features, records, at):
    """Whatever the windows, the order and the batches: each feature is what all records so far say it is."""
    table, twin = table_of(features), Twin(features.stages[1], features)
    fast = rows(table, records, fold(table, records, at))
    slow = [twin.fold(record) for record in records]
    for record, one, other in zip(records, fast, slow, strict=True):
        assert agree(table.stage, one, other), f"{record}\n fast {one}\n slow {other}"


@drawn
@given(feature_sets(), streams(), cuts(), cuts(), st.randoms(use_true_random=False))
def test_the_state_does_not_depend_on_order_or_batches(features, records, at, other_at, random):
    """The same records in any order, cut anywhere, leave the same bytes."""
    shuffled = random.sample(records, len(records))
    assert table_of(features, records, at).states() == table_of(features, shuffled, other_at).states()


@drawn
@given(feature_sets(), streams(), streams(max_size=15), cuts())
def test_a_restart_changes_nothing(features, before, after, at):
    """State that went to the store and back has the same bytes and gives the same features, bit for bit."""
    table = table_of(features, before)
    again = reloaded(table, features)
    assert again.states() == table.states()
    assert fold(again, after, at).tobytes() == fold(table, after).tobytes()
    assert again.states() == table.states()


@drawn
@given(feature_sets(), streams())
def test_entities_do_not_disturb_each_other(features, records):
    """An entity folded alone ends with the same bytes as among others."""
    together = table_of(features, records).states()
    for key, state in together.items():
        alone = table_of(features, [record for record in records if record.key == key])
        assert alone.states() == {key: state}


def test_the_rows_of_labels_are_zeros():
    """A label updates; it is not scored, so it has no features."""
    folded = fold(table_of(), RECORDS)
    of_labels = [record.kind is Over.LABELS for record in RECORDS]
    assert not folded[of_labels].any()
    assert folded[~np.array(of_labels)].any(axis=1).all()


def test_nothing_to_fold():
    """An empty batch is a batch: no rows, no change."""
    table = table_of(records=RECORDS)
    states = table.states()
    assert fold(table, []).shape == (0, len(STAGE.names))
    assert table.states() == states
    assert table_of().states() == {}
    assert taken(table_of()) == []


def test_an_entity_in_memory_is_not_missing():
    """Each key that must be loaded is named once, in order."""
    table = table_of(records=RECORDS)
    assert table.missing([b"z", b"x", b"w", b"z"]) == [b"z", b"w"]
    assert (b"x" in table, b"z" in table, len(table)) == (True, False, 2)


def test_too_late_is_counted():
    """A record too late to be kept is counted, once a view of its kind; the others are not."""
    table = table_of(records=[Record(b"x", Over.LABELS, time, (0.0, 0.0, 1.0)) for time in (100, 75, 76, 0, 100)])
    assert table.late == 2


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


@drawn
@given(streams(max_size=12).filter(bool), st.data())
def test_damaged_state_is_refused_and_changes_nothing(records, data):
    """One flipped bit, two topmost bits, a cut or an addition anywhere: refused, and the table is as it was."""
    source = table_of(records=records)
    _, state = data.draw(st.sampled_from(sorted(source.states().items())))
    flipped = bytearray(state)
    flipped[data.draw(st.integers(0, len(state) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    topmost = bytearray(state)
    for word in data.draw(st.lists(st.integers(1, len(state) // 8 - 1), min_size=2, max_size=2, unique=True)):
        topmost[8 * word + 7] ^= 0x80
    cut = state[: data.draw(st.integers(0, len(state) - 1))]
    table = table_of(records=RECORDS)
    before = table.states()
    for damaged in (bytes(flipped), bytes(topmost), cut, state + bytes(8), state + b"\0", state + state):
        for target in (b"x", b"new"):
            with pytest.raises(StateRefused, match="damaged"):
                table.load(target, damaged)
    assert table.states() == before
    assert b"new" not in table


@pytest.mark.parametrize(
    ("ring", "size", "width", "tiles"), [(0, 3, 2, 0), (0, 3, 0, 0), (1, 0, 1, 3), (0, 3, 1, 2), (3, 3, 8, 3)]
)
def test_state_that_nobody_writes_is_refused(ring, size, width, tiles):
    """Its checksum is right, and it would be read or written where others have their records."""
    counts = [Windowed(f"count_{number}", Aggregate.COUNT, WINDOWS[1]) for number in range(3)]
    stage = Stage("entity", "entity_id", tuple(View(Over.EVENTS, "a", (count,)) for count in counts))
    features = FeatureSet(VALUES, (stage,), ())  # the first stage, which has a ring of ids behind those of the views
    table = EntityTable(stage, features)
    rings = [words(0, 1, 0)] * 4
    rings[ring] = words(size, width, tiles)
    state = table.memory._fingerprint.tobytes() + bytes(8) + b"".join(rings)  # nothing public says it
    with pytest.raises(StateRefused, match="damaged"):
        table.load(b"x", sealed(state))
    table.load(b"x", sealed(table.memory._fingerprint.tobytes() + bytes(8) + words(3, 1, 3) + words(0, 1, 0) * 3))


def words(size, width, tiles):
    """A ring of so many records, bytes a value and records of tiles, all zeros."""
    body = bytes((8 + (4 * size + 7) // 8 * 8 + (width * size + 7) // 8 * 8 if size else 0) + 16 * tiles)
    return np.array([size, width + (tiles << 8)], np.uint32).tobytes() + body


def sealed(state):
    """The state with the checksum that it should have."""
    fingerprint, checksum = (
        np.frombuffer(state, np.uint64)[0],
        statebytes._checksum(np.frombuffer(state[16:], np.uint64)),
    )
    return state[:8] + (fingerprint ^ np.uint64(checksum)).tobytes() + state[16:]


def test_another_feature_sets_state_is_refused():
    """Sound bytes that mean something else are refused, and the table is as it was."""
    other = FeatureSet(VALUES, (PLAIN, STAGE), (), lateness=6)
    state = table_of(other, RECORDS).states()[b"x"]
    table = table_of(records=RECORDS)
    before = table.states()
    for target in (b"x", b"new"):
        with pytest.raises(StateRefused, match="another feature set"):
            table.load(target, state)
    assert table.states() == before
    assert b"new" not in table


def test_state_is_read_whatever_features_are_read_off_it():
    """Another aggregate or a shorter window beside the longest needs no new state: the old is taken."""
    more = Windowed("more", Aggregate.STD, Window("7ms", 7))
    wider = Stage("entity", "entity_id", (View(Over.EVENTS, "a", (*STAGE.views[0].features, more)), *STAGE.views[1:]))
    features = FeatureSet(VALUES, (PLAIN, wider), (), lateness=5)
    old = table_of(records=RECORDS)
    table = reloaded(old, features)
    assert table.states() == old.states()


@pytest.mark.parametrize("value", [0.0, 255.0, 256.0, -1.0, 0.5, 0.1, 1e12, 16_777_217.0, 1e-300, 2.0**-149, 1e300])
def test_any_value_survives_the_bytes(value):
    """Values are kept as narrow as they are exact, and never narrower."""
    table = table_of(records=[Record(b"x", Over.EVENTS, 1, (value, value, 0.0))])
    last = [Record(b"x", Over.EVENTS, 1, (0.0, 0.0, 0.0))]
    assert fold(reloaded(table), last).tobytes() == fold(table, last).tobytes()


def test_many_entities_grow_the_arena():
    """Thousands of entities of very different size, in small batches: each is as if it were alone."""
    rng = np.random.default_rng(3)
    keys = (rng.zipf(1.3, 20_000) % 3_000).tolist()
    times = np.arange(20_000) // 40 + rng.integers(-3, 4, 20_000)
    records = [
        Record(f"k{key}".encode(), Over(int(kind)), int(time), (float(amount), 1.0, float(label)))
        for key, time, amount, kind, label in zip(
            keys, times, rng.lognormal(3, 1, 20_000), rng.random(20_000) < 0.2, rng.integers(0, 2, 20_000), strict=True
        )
    ]
    table = table_of()
    folded = np.vstack([fold(table, records[at : at + 333]) for at in range(0, len(records), 333)])
    assert len(table) > 1_500
    for key in (b"k1", b"k2", b"k17", records[-1].key):
        mine = [row for row, record in enumerate(records) if record.key == key]
        alone = table_of()
        assert fold(alone, [records[row] for row in mine]).tobytes() == folded[mine].tobytes()
        assert alone.states()[key] == table.states()[key]
    assert reloaded(table).states() == table.states()


def test_the_arena_is_bounded_by_what_is_kept():
    """Memory follows the records inside the windows, not all that ever passed."""
    table = table_of()
    for time in range(0, 20_000, 100):
        fold(table, [Record(b"k%d" % (at % 10), Over.EVENTS, at, (1.5, 1.0, 0.0)) for at in range(time, time + 100)])
    kept = 10 * 2 * 3  # ten entities, two views over events, two or three records inside 25 ms
    assert table.memory._arena.blocks[USED] <= 16 * kept  # nothing public says it


def test_a_window_too_long_for_the_bytes_is_refused():
    """Ages are 32 bits wide: about 49 days, and the error names the entity."""
    long = Window("50d", 50 * 86_400_000)
    stage = Stage("entity", "entity_id", (View(Over.EVENTS, "a", (Windowed("n", Aggregate.COUNT, long),)),))
    with pytest.raises(ValueError, match=r"entity: .*49 days"):
        EntityTable(stage, FeatureSet(VALUES, (stage,), ()))
