"""The join at work on a store in memory: who waits, for how long, and what leaves when."""

import asyncio

import msgspec
import pytest

from schemas.events import Label
from streams.agents.join import LABELS_AT_ONCE
from streams.features.seen import FARTHEST
from streams.runtime.hop import LABEL, WATERMARK
from streams.stores.history import KeptLabel
from streams.stores.memory_history import MemoryHistory
from tests.unit.streams.agents.joining import World, run, until


def test_one_label_without_an_event_holds_up_no_other() -> None:
    """What stands before and after it leaves at once, only its offset is not passed; it follows when found."""

    async def scenario() -> None:
        world = World(written=False)
        await world.score("a")
        await world.score("c")
        working = asyncio.create_task(world.work("a", "b", "c"))
        await until(lambda: bool(world.yielded))
        assert world.outbox.examples == ["a", "c"]
        assert world.yielded == [101]
        assert world.waiting == 1
        await world.score("b")
        await working
        assert world.outbox.examples == ["a", "c", "b"]
        assert [one.label_offset for one in world.outbox.learnt] == [100, 102, 101]
        assert world.yielded == [101, 103]
        assert world.waiting == 0
        places = {"a": 100, "b": 101, "c": 102}
        assert await world.store.labels([*places]) == {i: KeptLabel(Label(i, 9, 1), 0, at) for i, at in places.items()}

    run(scenario())


def test_an_event_nobody_scored_is_given_up_and_the_rest_goes_on() -> None:
    """After the wait, with all scores written, the label is a dead letter "unknown_event" and no row is kept."""

    async def scenario() -> None:
        world = World()
        await world.score("c")
        await world.work("nobody", "c")
        assert world.outbox.examples == ["c"]
        ((value, headers),) = world.outbox.letters
        assert msgspec.json.decode(value or b"", type=Label).event_id == "nobody"
        assert headers["headrace-error"] == b"unknown_event"
        assert headers["headrace-source"] == b"fraud.labels/0/100"
        assert world.yielded[-1] == 102
        assert list(await world.store.labels(["nobody", "c"])) == ["c"]

    run(scenario())


@pytest.mark.parametrize("found", [True, False])
def test_while_scores_are_still_being_written_no_label_is_unknown(found: bool) -> None:
    """Long after its time a label still waits for a history that lags; what the last scores brought decides."""

    async def scenario() -> None:
        world = World(written=False)
        working = asyncio.create_task(world.work("b"))
        await until(lambda: world.written.asked >= 4)
        assert not working.done()
        assert world.outbox.letters == []
        if found:
            await world.score("b")
        world.written.done = True
        await working
        assert world.outbox.examples == (["b"] if found else [])
        assert len(world.outbox.letters) == (0 if found else 1)

    run(scenario())


def test_an_event_from_before_this_deployment_is_among_the_published() -> None:
    """Who has not scored an event itself takes what was published of it, but not before that is certain."""

    async def scenario() -> None:
        published = MemoryHistory()
        world = World(written=False, published=published)
        await world.score("old", published)
        working = asyncio.create_task(world.work("old"))
        await until(lambda: world.written.asked >= 2)
        assert world.outbox.batches == []
        world.written.done = True
        await working
        assert world.outbox.examples == ["old"]
        assert world.outbox.letters == []
        assert list(await world.store.labels(["old"])) == ["old"]

    run(scenario())


def test_the_next_batch_is_not_held_up_either() -> None:
    """While a label waits, work on its batch may be left for the next; nothing past the label is committed."""

    async def scenario() -> None:
        world = World(written=False)
        await world.score("b")
        await world.work("a", until_it_waits=True)
        await world.work("b", first=101, until_it_waits=True)
        assert world.outbox.examples == ["b"]
        assert world.yielded == [100]
        await world.score("a")
        await world.score("c")
        await world.work("c", first=102)
        assert sorted(world.outbox.examples) == ["a", "b", "c"]
        assert world.yielded[-1] == 103

    run(scenario())


def test_a_watermark_overtakes_no_label() -> None:
    """It promises that no label before it will follow: it leaves after those before it, whatever leaves first."""

    async def scenario() -> None:
        world = World(written=False)
        await world.score("b")
        await world.work("a", "|", "b", until_it_waits=True)
        assert world.outbox.hops == [(LABEL, 102)]
        await world.score("a")
        await world.score("c")
        await world.work("c", first=103)
        assert world.outbox.hops[1:] == [(LABEL, 103), (LABEL, 100), (WATERMARK, 101)]
        assert world.yielded == [100, 104]

    run(scenario())


def test_no_label_is_overtaken_farther_than_receivers_can_tell() -> None:
    """From `FARTHEST` offsets on labels do wait behind one that waits."""

    async def scenario() -> None:
        world = World(written=False)
        ids = [f"e{i}" for i in range(FARTHEST + 10)]
        for event_id in ids[1:]:
            await world.score(event_id)
        working = asyncio.create_task(world.work(*ids))
        await until(lambda: len(world.outbox.examples) >= FARTHEST - 1)
        await asyncio.sleep(0.2)
        assert max(one.label_offset or 0 for one in world.outbox.learnt) == 100 + FARTHEST - 1
        await world.score(ids[0])
        await working
        assert sorted(world.outbox.examples) == sorted(ids)

    run(scenario())


def test_a_large_batch_leaves_in_runs() -> None:
    """Thousands of labels in one batch are joined and committed run by run, in order."""

    async def scenario() -> None:
        world = World()
        ids = [f"e{i}" for i in range(2 * LABELS_AT_ONCE + 1)]
        for event_id in ids:
            await world.score(event_id)
        await world.work(*ids)
        assert world.outbox.examples == ids
        assert world.yielded == [100 + LABELS_AT_ONCE, 100 + 2 * LABELS_AT_ONCE, 100 + len(ids)]

    run(scenario())
