"""Blocks of the arena: taken again when nobody has them, and nothing is lost when it grows."""

import mmap
import random

import numpy as np
import pytest

from streams.features import arena, kernel
from streams.features.arena import FREE, USED, Arena
from streams.features.spec import Aggregate, FeatureSet, Over, Stage, View, Window, Windowed
from streams.features.table import EntityTable
from tests.twin import Record
from tests.unit.streams.features.drawn import PLAIN, VALUES
from tests.unit.streams.features.folding import fold, taken

STAGE = Stage(
    "entity",
    "entity_id",
    (View(Over.EVENTS, "a", (Windowed("n", Aggregate.COUNT, Window("2s", 2000)),)),),
)
FEATURES = FeatureSet(VALUES, (PLAIN, STAGE), ())


class Unresizable(mmap.mmap):
    """Memory of a system that cannot map its pages anew."""

    def resize(self, _: int) -> None:
        raise SystemError("mmap: resizing not available--no mremap()")


@pytest.mark.parametrize("kind", [mmap.mmap, Unresizable])
def test_nothing_is_lost_when_it_grows(kind: type[mmap.mmap], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmap, "mmap", kind)
    one = Arena()
    size = one.times.size
    one.times[:], one.values[:] = np.arange(size), np.arange(size) / 7
    one.grow()
    assert one.times.size == one.values.size > size
    assert np.array_equal(one.times[:size], np.arange(size))
    assert np.array_equal(one.values[:size], np.arange(size) / 7)
    assert not one.times[size:].any()
    assert not one.values[size:].any()


def test_what_one_slot_leaves_another_takes() -> None:
    one, rings = Arena(), np.zeros((2, 2), arena.ring_type)
    assert kernel.place(0, np.array([5, 40]), rings, one.times, one.blocks)
    first, used = rings[0].copy(), one.blocks[USED]
    kernel.release(np.array([0]), rings, one.times, one.blocks)
    assert not rings[0]["capacity"].any()
    assert kernel.place(1, np.array([40, 5]), rings, one.times, one.blocks)
    assert rings[1]["base"].tolist() == first["base"].tolist()[::-1]
    assert one.blocks[USED] == used


def test_a_slot_gets_all_its_blocks_or_none() -> None:
    """Else what it was given would be nobody's once it asks again."""
    one, rings = Arena(), np.zeros((1, 2), arena.ring_type)
    counts = np.array([3, one.times.size])
    assert not kernel.place(0, counts, rings, one.times, one.blocks)
    assert not rings["capacity"].any()
    one.grow()
    assert kernel.place(0, counts, rings, one.times, one.blocks)
    assert one.blocks[USED] == rings["capacity"].sum()


def test_what_a_ring_leaves_that_grows_another_takes() -> None:
    table = EntityTable(STAGE, FEATURES)

    def used_after(key: bytes, count: int) -> int:
        fold(table, [Record(key, Over.EVENTS, 1, (1.0, 1.0, 0.0)) for _ in range(count)])
        check_blocks(table)
        return int(table.memory._arena.blocks[USED])  # nothing public says it

    assert [used_after(b"first", 4), used_after(b"first", 1), used_after(b"second", 4)] == [4, 12, 12]


def test_a_burst_is_forgotten() -> None:
    """Memory follows what the windows hold, not the most that each entity ever had."""
    table = EntityTable(STAGE, FEATURES)
    for number in range(100):
        key, time = b"%d" % number, 10_000_000 * number
        fold(table, [Record(key, Over.EVENTS, time + at, (1.0, 1.0, 0.0)) for at in range(700)])
        fold(table, [Record(key, Over.EVENTS, time + 5_000_000 + 4_000_000 * at, (1.0, 1.0, 0.0)) for at in range(5)])
        check_blocks(table)
    assert table.memory._arena.blocks[USED] < 100 * 64  # nothing public says it


def check_blocks(table: EntityTable) -> None:
    """See that each record taken of the arena is in one ring's block or in one that is free."""
    one, spans = table.memory._arena, []
    for ring in table.memory._rings.reshape(-1):
        assert 0 <= ring["first"] <= ring["first"] + ring["size"] <= ring["capacity"]
        if ring["capacity"]:
            spans.append((int(ring["base"]), int(ring["capacity"])))
    for order, first in enumerate(one.blocks[FREE:].tolist()):
        at = first
        while at >= 0:
            spans.append((at, 1 << order))
            at = int(one.times[at])
    end = 0
    for base, capacity in sorted(spans):
        assert base == end
        end += capacity
    assert end == one.blocks[USED] <= one.times.size


def test_entities_that_come_and_go_keep_their_records() -> None:
    """Rings that grow, move, leave for the store and come back, among thousands, against a table that nobody leaves."""
    chance = random.Random(1)
    still, moving = EntityTable(STAGE, FEATURES), EntityTable(STAGE, FEATURES)
    kept: dict[bytes, bytes] = {}
    for time in range(200):
        keys = [b"%d" % (chance.randrange(400) ** 2 // 400) for _ in range(200)]
        records = [Record(key, Over.EVENTS, 10 * time, (float(at), 1.0, 0.0)) for at, key in enumerate(keys)]
        for key in moving.missing(keys):
            if key in kept:
                moving.load(key, kept[key])
        assert np.array_equal(fold(moving, records), fold(still, records))
        kept |= dict(taken(moving))
        moving.evict(chance.randrange(100, 400))
        check_blocks(moving)
        check_blocks(still)
    assert kept == still.states()
    assert moving.memory._arena.blocks[USED] <= still.memory._arena.blocks[USED]  # nothing public says it
