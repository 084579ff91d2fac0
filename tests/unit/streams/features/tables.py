"""The tables that tests of the memory fold records into, and what is read back from their states."""

from hypothesis import settings

from streams.features.spec import Aggregate, FeatureSet, Over, Stage, View, Window, Windowed
from streams.features.table import EntityTable
from tests.twin import Record
from tests.unit.streams.features.drawn import OF_EVENTS, PLAIN, VALUES
from tests.unit.streams.features.folding import fold

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
