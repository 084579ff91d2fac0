"""The table against its slow twin: features, order, entities among others, room."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.features.arena import USED
from streams.features.spec import Aggregate, FeatureSet, Over, Stage, View, Window, Windowed
from streams.features.table import EntityTable
from tests.twin import Record, Twin, agree
from tests.unit.streams.features.drawn import VALUES, cuts, feature_sets, streams
from tests.unit.streams.features.folding import fold, rows, taken
from tests.unit.streams.features.tables import RECORDS, STAGE, drawn, reloaded, table_of


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
