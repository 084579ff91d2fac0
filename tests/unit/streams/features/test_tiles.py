"""Hot keys: exact up to a number of records, tiles beyond it, whose error, size and cost are bounded."""

import time
from statistics import median

import numpy as np
import pytest

from streams.features.kernel import MOST_RECORDS, TILES_A_LEVEL
from streams.features.spec import HOUR, MINUTE, Aggregate, FeatureSet, Over, Stage, View, Window, Windowed
from streams.features.table import EntityTable
from streams.usecases import FRAUD
from tests.unit.streams.features.drawn import OF_EVENTS

LENGTHS = (10 * MINUTE, HOUR, 24 * HOUR)
STAGE = Stage(
    "card",
    "card_id",
    (
        View(
            Over.EVENTS, "a", tuple(Windowed(f"{a.name}_{w}", a, Window(str(w), w)) for a in OF_EVENTS for w in LENGTHS)
        ),
    ),
)
FEATURES = FeatureSet(("a",), (STAGE,), ())
BOUND = 1 / (TILES_A_LEVEL - 1)
"""A window's edge lies in one tile, and every tile has at most this share of the records that are younger."""


def table():
    return EntityTable(STAGE, FEATURES)


def fold(table, times, amounts, batch=1000):
    parts = []
    for at in range(0, len(times), batch):
        part = np.asarray(times[at : at + batch], np.int64)
        values = np.stack([amounts[at : at + batch], np.zeros(len(part))], axis=1)
        parts.append(table.fold([b"k"] * len(part), np.zeros(len(part), np.int8), part, values))
    return np.vstack(parts)


def columns(features, aggregate):
    """The features of an aggregate, one column a window."""
    return features[:, [STAGE.names.index(f"{aggregate.name}_{length}") for length in LENGTHS]]


def inside(times, row, length):
    """Which of the records up to `row` lie in the window of its event."""
    seen = times[: row + 1]
    return np.flatnonzero((seen > times[row] - length) & (seen <= times[row]))


def arrivals(n, pattern, seed=1):
    """n event times in order, and amounts: steady, in bursts, or ever faster."""
    rng = np.random.default_rng(seed)
    gaps = {
        "steady": rng.exponential(4_000, n),
        "bursts": np.where(rng.random(n) < 0.001, 2 * HOUR, rng.exponential(300, n)),
        "faster": rng.exponential(np.geomspace(20_000, 20, n)),
    }[pattern]
    return np.cumsum(gaps).astype(np.int64), np.round(rng.lognormal(3, 1, n), 2)


@pytest.mark.parametrize("pattern", ["steady", "bursts", "faster"])
def test_only_the_tile_at_a_windows_edge_is_approximate(pattern):
    """
    Records in order: a count is off by less than one tile, which is a 15th of the window at most.

        | tile | tile |til|til| t | t |ring|      the records, older ones in larger tiles
                   (-------------------- t]      the window begins inside one of them
    """
    n = 30_000
    times, amounts = arrivals(n, pattern)
    features = fold(table(), times, amounts)
    counts, sums, largest = (columns(features, a) for a in (Aggregate.COUNT, Aggregate.SUM, Aggregate.MAX))
    approximate = 0
    for row in range(0, n, 97):
        for at, length in enumerate(LENGTHS):
            exact = inside(times, row, length)
            error = abs(counts[row, at] - len(exact))
            approximate += error > 0
            assert error <= BOUND * len(exact)
            # The records that are wrongly in or out lie next to the edge, in the same tile.
            edge = amounts[max(0, exact[0] - 2 - int(BOUND * len(exact))) : exact[0] + 2 + int(BOUND * len(exact))]
            assert abs(sums[row, at] - amounts[exact].sum()) <= edge.sum() + 1e-6
            assert amounts[exact].max() <= largest[row, at] <= max(amounts[exact].max(), edge.max())
    assert approximate > 0


def test_what_is_usual_is_much_closer():
    """Of a steady stream the records of a tile are spread evenly: counts are right to a thousandth or two."""
    times, amounts = arrivals(60_000, "steady")
    features = fold(table(), times, amounts)
    rows = range(30_000, 60_000, 101)
    exact = [inside(times, row, LENGTHS[2]) for row in rows]
    errors = [columns(features, Aggregate.COUNT)[row, 2] / len(one) - 1 for row, one in zip(rows, exact, strict=True)]
    assert median(map(abs, errors)) < 0.002
    for aggregate, function in ((Aggregate.MEAN, np.mean), (Aggregate.STD, np.std)):
        found = columns(features, aggregate)[rows, 2]
        np.testing.assert_allclose(found, [function(amounts[one]) for one in exact], rtol=0.02)


def test_a_window_that_the_ring_covers_is_exact():
    """Tiles are for what is older: short windows and the time since the last event stay exact."""
    times, amounts = arrivals(20_000, "steady")
    features = fold(table(), times, amounts)
    for row in range(10_000, 20_000, 53):
        exact = inside(times, row, LENGTHS[0])
        assert len(exact) < MOST_RECORDS // 2
        assert columns(features, Aggregate.COUNT)[row, 0] == len(exact)
        assert columns(features, Aggregate.SUM)[row, 0] == pytest.approx(amounts[exact].sum(), rel=1e-12)
        assert columns(features, Aggregate.SINCE)[row, 2] == (times[row] - times[row - 1]) / 1000


def test_labels_in_tiles_are_told_apart_by_tile():
    """Beyond the ring, the newest fraud is as long ago as the newest label of its tile: never longer than it is.

    | tile | tile |til|1il| t | t |ring|     1: the newest fraud; what is said is where its tile ends
    """
    since = Windowed("since", Aggregate.SINCE_POSITIVE, Window("w", 24 * HOUR))
    stage = Stage("shop", "shop_id", (View(Over.LABELS, "", (since,)),))
    labels = EntityTable(stage, FeatureSet(("a",), (STAGE, stage), ()))
    n, fraud = 3_000, 1_900
    times = np.arange(n + 1) * 10_000
    kinds = np.array([Over.LABELS] * n + [Over.EVENTS], np.int8)
    values = np.zeros((n + 1, 2))
    values[fraud, 1] = 1.0
    (said,) = labels.fold([b"s"] * (n + 1), kinds, times, values)[-1]
    true = (times[-1] - times[fraud]) / 1000
    assert true * (1 - BOUND) <= said <= true
    assert said < true, "the fraud lies in a tile"


def test_up_to_the_stated_number_nothing_is_approximate():
    """As many records as a ring may have, in any order: every count is exact, and the state knows no order."""
    rng = np.random.default_rng(5)
    times, amounts = rng.permutation(MOST_RECORDS) * 60_000, rng.lognormal(3, 1, MOST_RECORDS)
    shuffled, ordered = table(), table()
    fold(shuffled, times, amounts)
    order = np.argsort(times)
    features = fold(ordered, times[order], amounts[order])
    assert shuffled.states() == ordered.states()
    last = inside(times[order], MOST_RECORDS - 1, LENGTHS[2])
    assert columns(features, Aggregate.COUNT)[-1, 2] == len(last) == MOST_RECORDS


def test_a_restart_changes_nothing():
    """A hot key's state that went to the store and back has the same bytes and gives the same features."""
    times, amounts = arrivals(12_000, "faster")
    whole = table()
    expected = fold(whole, times, amounts, batch=12_000)
    for cut in (MOST_RECORDS + 1, 5_000, 11_999):
        before, after = table(), table()
        fold(before, times[:cut], amounts[:cut], batch=700)
        after.load(b"k", before.states()[b"k"])
        assert after.states() == before.states()
        assert fold(after, times[cut:], amounts[cut:], batch=333).tobytes() == expected[cut:].tobytes()
        assert after.states() == whole.states()


def test_late_records_go_to_the_tile_of_their_time():
    """Every record is counted once, however late inside the lateness, and a late event sees its own past."""
    rng = np.random.default_rng(7)
    times, amounts = arrivals(20_000, "steady")
    arrived = np.argsort(times + rng.integers(0, 30 * MINUTE, len(times)))
    late, amounts = times[arrived], amounts[arrived]
    found = table()
    features = fold(found, late, amounts)
    for row in range(5_000, 20_000, 211):
        for at, length in enumerate(LENGTHS):
            exact = len(inside(late, row, length))
            assert columns(features, Aggregate.COUNT)[row, at] == pytest.approx(exact, rel=2 * BOUND, abs=16)
    # An hour later all of the last hours are in one window, whatever the order was.
    end = times[-1] + 1
    assert columns(fold(found, [end], np.ones(1)), Aggregate.COUNT)[0, 2] == pytest.approx(
        np.count_nonzero(times > end - LENGTHS[2]) + 1, rel=BOUND
    )


def test_a_hot_key_cools_down():
    """When what made it hot is out of every window, its state is that of any other."""
    times, amounts = arrivals(20_000, "faster")
    hot, cold = table(), table()
    fold(hot, times, amounts)
    later = [int(times[-1]) + 48 * HOUR]
    assert fold(hot, later, np.ones(1)).tobytes() == fold(cold, later, np.ones(1)).tobytes()
    assert hot.states() == cold.states()


def cost(table, keys, times, first=0):
    """CPU seconds to fold an event of each key, with an id of its own."""
    n = len(keys)
    ids, kinds, values = [b"%d" % (first + number) for number in range(n)], np.zeros(n, np.int8), np.ones((n, 2))
    begin = time.process_time()
    table.fold_once(ids, keys, kinds, times, values)
    return (time.process_time() - begin) / n


def test_an_event_of_a_hot_key_costs_what_one_of_a_cold_key_does():
    """A customer with 1,000,000 events in an hour: at most three times the CPU of 5,000 with 60 in a month, which
    are measured in turns; the state stays below 80 kB."""
    n, batch, customers = 1_000_000, 2_000, 5_000
    hot, cold = (EntityTable(FRAUD.features.stages[0], FRAUD.features) for _ in range(2))
    rng = np.random.default_rng(1)
    times = np.sort(rng.integers(0, HOUR, n))
    keys = [b"c%d" % number for number in range(customers)]
    for day in range(0, 30 * 24 * HOUR, 12 * HOUR):
        cost(cold, keys, np.full(customers, day), first=day)
    measured = n - 50 * batch
    cost(hot, [b"k"] * measured, times[:measured])
    hot_costs, cold_costs = [], []
    for first in range(measured, n, batch):
        hot_costs.append(cost(hot, [b"k"] * batch, times[first : first + batch], first))
        picked = [keys[number] for number in rng.integers(0, customers, batch).tolist()]
        cold_costs.append(cost(cold, picked, np.full(batch, 30 * 24 * HOUR + first), first))
    assert len(hot.states()[b"k"]) < 80_000
    # Pairs: whoever shares the machine takes from both.
    assert median(np.divide(hot_costs, cold_costs)) < 3
