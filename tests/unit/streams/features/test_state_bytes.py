"""The bytes of an entity's state: what they keep, and what of them is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.features import statebytes
from streams.features.spec import Aggregate, FeatureSet, Over, Stage, View, Window, Windowed
from streams.features.table import EntityTable, StateRefused
from tests.twin import Record
from tests.unit.streams.features.drawn import PLAIN, VALUES, streams
from tests.unit.streams.features.folding import fold
from tests.unit.streams.features.tables import RECORDS, STAGE, WINDOWS, drawn, reloaded, table_of


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
