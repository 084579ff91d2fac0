"""What hypothesis draws for the features: feature sets, streams of records, and cuts into batches."""

from hypothesis import strategies as st

from streams.features.spec import BY_LABEL, Aggregate, FeatureSet, Over, Stage, View, Window, Windowed
from tests.twin import Record

PLAIN = Stage("plain", "plain_id", (View(Over.EVENTS, "a", (Windowed("plain", Aggregate.COUNT, Window("w", 1)),)),))
"""A first stage, which may have no labels, so that the second may be anything."""

OF_EVENTS = tuple(aggregate for aggregate in Aggregate if aggregate not in BY_LABEL)
"""The aggregates that a view over events may ask for."""

VALUES = ("a", "b")
KEYS = [b"k1", b"k2", b"", "ключ".encode()]

windows = st.integers(1, 12).map(lambda length: Window(f"{length}ms", length))
positive = st.floats(1e-3, 1e12)
signed = st.integers(-(2**20), 2**20).map(lambda quarters: quarters / 4)  # sums of these are exact, so they may cancel
small = st.sampled_from([0.0, -0.0, 1.0, 2.0, 255.0, 256.0])


@st.composite
def stages(draw):
    """A stage of one to three views, each with features over any windows in any order."""
    views = []
    for at in range(draw(st.integers(1, 3))):
        over = draw(st.sampled_from(Over))
        aggregates = st.sampled_from(OF_EVENTS if over is Over.EVENTS else Aggregate)
        asked = draw(st.lists(st.tuples(aggregates, windows), min_size=1, max_size=6))
        features = tuple(Windowed(f"f{at}_{i}", aggregate, window) for i, (aggregate, window) in enumerate(asked))
        views.append(View(over, draw(st.sampled_from(VALUES)) if over is Over.EVENTS else "", features))
    return Stage("entity", "entity_id", tuple(views))


def feature_sets():
    """A feature set whose second stage is drawn, with a lateness from none to long."""
    return st.builds(
        lambda stage, lateness: FeatureSet(VALUES, (PLAIN, stage), (), lateness), stages(), st.integers(0, 15)
    )


@st.composite
def streams(draw, max_size=40):
    """Records of a few entities: ties, any disorder, and some later than anything is kept."""
    amounts = draw(st.sampled_from([positive, signed, small]))
    record = st.builds(
        lambda key, kind, time, a, b, label: Record(key, kind, time, (a, b, label)),
        st.sampled_from(KEYS), st.sampled_from(Over), st.integers(0, 50), amounts, amounts, st.sampled_from([0.0, 1.0]),
    )  # fmt: skip
    return draw(st.lists(record, max_size=max_size))


def cuts(most=40):
    """Where a list of records is cut into batches; some batches are empty."""
    return st.lists(st.integers(0, most), max_size=5).map(sorted)
