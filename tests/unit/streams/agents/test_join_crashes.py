"""The join killed anywhere: learner and stages are told of each label as if nothing had happened."""

from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import Label
from streams.agents.settling import settle
from streams.features.seen import Seen
from streams.stores.history import KeptLabel
from streams.stores.memory_history import MemoryHistory
from tests.unit.streams.agents.joining import Outbox, World, run

BEGIN = 1_700_000_000_000


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=6),
    st.lists(st.integers(1, 5), max_size=4),
    st.randoms(use_true_random=False),
)
@settings(deadline=None, max_examples=40)
def test_killed_anywhere_each_label_counts_once(scored_first: list[int], batches: list[int], random: Random) -> None:
    """Whichever events are late, and whenever the join dies: by their places, learner and stages take each label
    once, and none is missing."""

    async def scenario() -> None:
        world = World(written=False)
        ids = [f"e{i}" for i in range(10)]
        for number in scored_first:
            await world.score(f"e{number}")
        for size in batches:  # each a process's life: two batches, killed while it waits or earlier
            start = max(world.yielded[-1:], default=100)
            for first in (start, start + size):
                await world.work(*ids[first - 100 : first - 100 + size], first=first, until_it_waits=True)
            await world.score(random.choice(ids))
            world.agent.forget()
            if random.random() < 0.5 and len(world.yielded) > 1:
                world.yielded.pop()  # the last commit did not come through
        for event_id in ids:
            await world.score(event_id)
        start = max(world.yielded[-1:], default=100)
        await world.work(*ids[start - 100 :], first=start)
        learner, stages = Seen(1), Seen(1)
        counted = [one.event_id for one in world.outbox.learnt if learner.add(0, one.label_offset or 0)]
        assert sorted(counted) == ids
        assert sorted(offset for _, offset in world.outbox.hops if stages.add(0, offset)) == list(range(100, 110))

    run(scenario())


class Killed(Exception):
    """The process is dead."""


class Mortal:
    """A process that dies before or after one of its effects, `left` effects from now."""

    def __init__(self, left: int, after: bool) -> None:
        self.left, self.after = left, after

    def __enter__(self) -> None:
        self.left -= 1
        if self.left == -1 and not self.after:
            raise Killed

    def __exit__(self, *_: object) -> None:
        if self.left == -1:
            raise Killed


class MortalOutbox(Outbox):
    """A Sender on the same Kafka as another's."""

    def __init__(self, outbox: Outbox, mortal: Mortal) -> None:
        super().__init__()
        self.batches, self._mortal = outbox.batches, mortal

    def send_records(self, *args: Any) -> None:
        with self._mortal:
            super().send_records(*args)


class MortalStore(MemoryHistory):
    """The same rows as another's."""

    def __init__(self, store: MemoryHistory, mortal: Mortal) -> None:
        self.__dict__ = {**store.__dict__, "_mortal": mortal}

    async def write_labels(self, labels: Sequence[KeptLabel]) -> None:
        for row in labels:  # a batch is no transaction
            with self._mortal:
                await super().write_labels([row])


labels_of_few = st.lists(
    st.builds(
        lambda event, time, label, assumed: Label(event, BEGIN + time, 0 if assumed else label, assumed),
        st.sampled_from("abc"),
        st.integers(0, 3),
        st.sampled_from([0, 1]),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


def settled(labels: Sequence[Label]) -> tuple[list[tuple[str, int, int | None, int]], dict[str, KeptLabel]]:
    """The twin: what the learner is told of labels that are settled one by one, and the rows that are left."""
    rows, told = dict[str, KeptLabel](), []
    for offset, label in enumerate(labels):
        one = settle(label, 0, offset, rows.get(label.event_id))
        if one.weight:
            told.append((label.event_id, label.label, one.corrects, offset))
        if one.row:
            rows[label.event_id] = one.row
    return told, rows


@given(labels_of_few, st.lists(st.tuples(st.integers(1, 4), st.integers(0, 6), st.booleans()), max_size=6))
@settings(deadline=None, max_examples=150)
def test_killed_at_any_effect_each_label_changes_what_it_must(
    labels: list[Label], lives: list[tuple[int, int, bool]]
) -> None:
    """Before or after any send, any row and any commit: learner and stages are told the same, once by place, and the
    rows are the same, as if nothing had happened."""

    async def scenario() -> None:
        store, outbox, committed = MemoryHistory(), Outbox(), 0
        for event_id in "abc":
            await World(store=store).score(event_id)
        for size, left, after in [*lives, (len(labels), 1 << 30, False)]:  # the last one lives
            mortal = Mortal(left, after)
            world = World(store=MortalStore(store, mortal), outbox=MortalOutbox(outbox, mortal))
            with suppress(Killed):
                while committed < len(labels):
                    batch = labels[committed : committed + size]
                    await world.work(*batch, first=committed)
                    with mortal:
                        committed = world.yielded[-1]
        seen, stages = Seen(1), Seen(1)
        told = [one for one in outbox.learnt if seen.add(0, one.label_offset or 0)]
        expected, rows = settled(labels)
        assert [(one.event_id, one.label, one.corrects, one.label_offset) for one in told] == expected
        assert [at for _, at in outbox.hops if stages.add(0, at)] == [offset for *_, offset in expected]
        assert await store.labels("abc") == rows

    run(scenario())
