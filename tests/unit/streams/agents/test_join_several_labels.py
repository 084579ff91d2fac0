"""Several labels of one event: in their order, and each changes what it must."""

import pytest

from schemas.events import Label
from streams.agents.settling import Outcome
from streams.stores.history import KeptLabel
from tests.unit.streams.agents.joining import World, run


def test_no_label_overtakes_another_of_its_event() -> None:
    """A label that comes while an earlier one of its event waits is settled after it, found or not."""

    async def scenario() -> None:
        world = World(written=False)
        await world.work(Label("a", 9, 0), until_it_waits=True)
        world.agent._rooms[0].look_at += 0.3  # the earlier one is not looked for again at once
        await world.score("a")
        await world.work(Label("a", 10, 1), first=101)
        assert [(one.label, one.corrects) for one in world.outbox.learnt] == [(0, None), (1, 0)]
        assert world.yielded == [100, 102]

    run(scenario())


@pytest.mark.parametrize("together", [True, False])
def test_of_several_labels_the_last_known_stays(together: bool) -> None:
    """In one batch or in several: what changes nothing is counted and told to nobody, what does corrects what was
    told before."""
    labels = [
        Label("a", 50, 0, assumed=True),
        Label("a", 40, 1),
        Label("a", 40, 1),
        Label("a", 30, 0),
        Label("b", 1, 1),
    ]

    async def scenario() -> None:
        world = World()
        for event_id in "ab":
            await world.score(event_id)
        for first, batch in [(0, labels)] if together else [(at, [one]) for at, one in enumerate(labels)]:
            await world.work(*batch, first=first)
        told = [(one.event_id, one.label, one.corrects, one.label_offset) for one in world.outbox.learnt]
        assert told == [("a", 0, None, 0), ("a", 1, 0, 1), ("b", 1, None, 4)]
        assert [offset for _, offset in world.outbox.hops] == [0, 1, 4]
        counts = {
            outcome: world.metrics.registry.get_sample_value("headrace_labels_total", {"outcome": outcome})
            for outcome in Outcome
        }
        assert counts == {"first": 2, "correction": 1, "repeat": 1, "stale": 1, "overruled": None, "settled": None}
        assert await world.store.labels(["a"]) == {"a": KeptLabel(labels[1], 0, 1)}

    run(scenario())
