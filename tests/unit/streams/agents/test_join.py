"""The join at work on a store in memory: who waits, for how long, and what leaves when."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from faust.types import TP
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from schemas.codec import encode
from schemas.events import WATERMARK_HEADER, Example, Label, Score, Watermark
from streams.agents.deadletters import DeadLetters
from streams.agents.join import LABELS_AT_ONCE, JoinAgent
from streams.agents.settling import Outcome, settle
from streams.agents.waiting import Patience, Step
from streams.features.seen import FARTHEST, Seen
from streams.metrics import Metrics
from streams.runtime.batches import Batch
from streams.runtime.hop import LABEL, WATERMARK, HopFormat
from streams.runtime.records import Header, Records, Spans, build, parse, partition_of
from streams.settings import Settings
from streams.stores.history import KeptLabel, Scored
from streams.stores.memory_history import MemoryHistory
from streams.usecases import FRAUD

SETTINGS = Settings(partitions=2, label_wait_seconds=0.05)
TOPICS = FRAUD.topics(2)
BEGIN = 1_700_000_000_000


class Outbox:
    """A Sender that keeps what it is given and acknowledges at once."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, int, bytes]] = []
        self.letters: list[tuple[bytes | None, dict[str, bytes | None]]] = []

    def send_records(
        self,
        topic: str,
        partition: int,
        keys: Spans,
        values: Spans,
        timestamps: NDArray[np.int64],
        rows: NDArray[np.int64],
    ) -> None:
        self.batches += [(topic, partition, bytes(batch)) for batch in build(keys, values, timestamps, rows)]

    async def send_many(
        self,
        topic: str,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        headers: Sequence[tuple[Header, ...]],
    ) -> None:
        assert topic == TOPICS.dlq.name
        self.letters += [(value, dict(mine)) for value, mine in zip(values, headers, strict=True)]

    def mark(self) -> None: ...

    async def acked(self, mark: None) -> None: ...

    async def room(self) -> None: ...

    @property
    def learnt(self) -> list[Example]:
        values = [
            value
            for topic, _, data in self.batches
            if topic == TOPICS.examples.name
            for value in parse(data, 0)[0].values()
        ]
        return [msgspec.json.decode(value or b"", type=Example) for value in values]

    @property
    def examples(self) -> list[str]:
        return [example.event_id for example in self.learnt]

    @property
    def hops(self) -> list[tuple[int, int]]:
        """Kind and source offset of what the terminal's partition is told, in order."""
        found = []
        ours = int(partition_of(Spans.of([b"t"]), 2)[0])
        for topic, partition, data in self.batches:
            if topic == TOPICS.hops[0].name and partition == ours:
                rows, _ = HopFormat(FRAUD.features, 1).decode(parse(data, 0)[0])
                found += list(zip(rows.kinds.tolist(), rows.source_offsets.tolist(), strict=True))
        return found


class Written:
    """How far the history group has come, as the test turns it."""

    def __init__(self, done: bool) -> None:
        self.done = done
        self.asked = 0

    async def ends(self, topic: str, partitions: int) -> dict[TP, int]:
        assert (topic, partitions) == (TOPICS.scores.name, 2)
        return {TP(topic, 0): 5}

    async def passed(self, ends: Mapping[TP, int]) -> bool:
        self.asked += 1
        return self.done


class World:
    """A join agent around a store in memory; `yielded` are the offsets it says are done, None where it waits."""

    def __init__(
        self,
        written: bool = True,
        published: MemoryHistory | None = None,
        store: MemoryHistory | None = None,
        outbox: Outbox | None = None,
    ) -> None:
        self.store, self.outbox, self.written = store or MemoryHistory(), outbox or Outbox(), Written(written)
        self.metrics = Metrics("test")
        letters = DeadLetters(self.outbox, TOPICS.dlq.name, self.metrics)  # type: ignore[arg-type]
        self.agent = JoinAgent(
            FRAUD,
            SETTINGS,
            self.store,
            self.outbox,  # type: ignore[arg-type]
            [Step(self.written, TOPICS.scores)],
            letters,
            self.metrics,
            published,
        )
        self.yielded: list[int] = []

    async def work(self, *labels: str | Label, first: int = 100, until_it_waits: bool = False) -> None:
        """Join a batch of labels, or positive ones of some events, at offsets from `first` on; "|" is a watermark."""
        n = len(labels)
        contents = [Label(one, 9, 1) if isinstance(one, str) else one for one in labels]
        values = [
            encode(Watermark(8) if one == "|" else content) for one, content in zip(labels, contents, strict=True)
        ]
        headers = [[(WATERMARK_HEADER, b"1")] if one == "|" else [] for one in labels]
        records = Records.of([None] * n, values, range(first, first + n), [1] * n, headers)
        async with aclosing(self.agent.work(Batch(TOPICS.labels.name, 0, records, first + n, 1))) as steps:
            async for offset in steps:
                if offset is None and until_it_waits:
                    break
                if offset is not None and self.yielded[-1:] != [offset]:  # again while it waits, as a sign of life
                    self.yielded.append(offset)

    @property
    def waiting(self) -> float | None:
        return self.metrics.registry.get_sample_value("headrace_waiting_labels", {"partition": "0"})

    async def score(self, event_id: str, store: MemoryHistory | None = None) -> None:
        score = Score(event_id, 5, {"customer": "c", "terminal": "t"}, {}, 0.5, "accept", "m@1", "00ff", 6, 7)
        await (store or self.store).write_scores([Scored(score, encode(score), 0)])


async def until(truth: Callable[[], bool]) -> None:
    while not truth():  # noqa: ASYNC110  # what is awaited has no event
        await asyncio.sleep(0.001)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 20))


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


class Group:
    """A consumer group as the test moves it; `logs` are the ends of the topics, shared by all groups."""

    def __init__(self, logs: dict[str, int]) -> None:
        self.logs, self.done = logs, dict.fromkeys(logs, 0)

    async def ends(self, topic: str, partitions: int) -> dict[TP, int]:
        return {TP(topic, 0): self.logs[topic]}

    async def passed(self, ends: Mapping[TP, int]) -> bool:
        return all(self.done[tp.topic] >= end for tp, end in ends.items())


def test_patience_follows_an_event_all_the_way() -> None:
    """Over when what was there after the wait has passed the stages, the hop and the history, one after the other;
    what comes later is not waited for."""

    async def scenario() -> None:
        logs, now = {TOPICS.events.name: 3, TOPICS.hops[0].name: 0, TOPICS.scores.name: 0}, [1000.0]
        stages, history = Group(logs), Group(logs)
        way = [*(Step(stages, topic) for topic in (TOPICS.events, *TOPICS.hops)), Step(history, TOPICS.scores)]
        patience = Patience(way, 30.0, lambda: now[0])
        assert await patience.over(1000.0) < 1000.0
        now[0] = 1031.0
        assert await patience.over(1000.0) < 1000.0  # the event may still be in the events
        logs[TOPICS.events.name] = 9  # these came later
        stages.done[TOPICS.events.name], logs[TOPICS.hops[0].name] = 3, 2
        assert await patience.over(1000.0) < 1000.0  # or in the hop
        stages.done[TOPICS.hops[0].name], logs[TOPICS.scores.name] = 2, 5
        now[0] = 1100.0
        assert await patience.over(1000.0) < 1000.0  # or among the scores
        history.done[TOPICS.scores.name] = 5
        assert await patience.over(1000.0) == 1001.0  # of those who have waited since then or longer

    run(scenario())


def test_labels_and_stages_do_not_wait_for_each_other() -> None:
    """A stage may hold its rows for a watermark that waits behind a label: the label does not wait for the stage."""

    async def scenario() -> None:
        logs = {TOPICS.events.name: 3, TOPICS.hops[0].name: 2, TOPICS.scores.name: 5}
        stages, history = Group(logs), Group(logs)
        way = [*(Step(stages, topic) for topic in (TOPICS.events, *TOPICS.hops)), Step(history, TOPICS.scores)]
        patience = Patience(way, 30.0, lambda: 1031.0)
        assert await patience.over(1000.0) < 1000.0
        assert await patience.over(1000.0, promised=True) < 1000.0
        history.done[TOPICS.scores.name] = 5
        assert await patience.over(1000.0, promised=True) == 1001.0

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
