"""Negatives are assumed one horizon late by the stream's clock, each in its turn, and none is left out."""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
import numpy as np
import pytest
from faust.types import TP
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from schemas.codec import encode
from schemas.events import Label, Score
from streams.agents import matured
from streams.agents.matured import MaturedAgent, assumptions, read_score
from streams.metrics import Metrics
from streams.runtime.batches import Batch
from streams.runtime.partitioner import partition_of
from streams.runtime.records import Records, Spans
from streams.usecases import FRAUD

LABELS = FRAUD.topics(3).labels
SCORES = TP("fraud.scores", 0)
HORIZON = 100


def score(event_id: str, event_time: int, scored_at: int = 1 << 40) -> bytes:
    return encode(Score(event_id, event_time, {}, {}, 0.5, "approve", "m@1", "00ff", event_time, scored_at))


class Outbox:
    """A Sender that keeps labels by where they went; nothing is kept that is not acknowledged."""

    def __init__(self) -> None:
        self.handed: list[tuple[int, Label]] = []
        self.sent: list[tuple[int, Label]] = []

    def send_records(
        self,
        topic: str,
        partition: int,
        keys: Spans,
        values: Spans,
        timestamps: NDArray[np.int64],
        rows: NDArray[np.int64],
    ) -> None:
        assert topic == LABELS.name
        for key, value in zip(keys.take(rows).to_list(), values.take(rows).to_list(), strict=True):
            label = msgspec.json.decode(value or b"", type=Label)
            assert key == label.event_id.encode()
            self.handed.append((partition, label))

    def mark(self) -> None: ...

    async def acked(self, mark: None) -> None:
        self.sent += self.handed
        self.handed = []


def agent_of(outbox: Outbox) -> MaturedAgent:
    return MaturedAgent(LABELS, HORIZON, outbox, Metrics("test"))  # type: ignore[arg-type]


def batch(values: Sequence[bytes | None], first: int = 0) -> Batch:
    n = len(values)
    return Batch(*SCORES, Records.of([None] * n, values, range(first, first + n), [0] * n), first + n, 1)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 20))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matured, "NAP", 0.0)


def test_an_event_is_negative_when_its_horizon_has_passed() -> None:
    """By the stream's clock, not the wall's; what is committed is what was labelled, and who waits is known."""
    #          due 110   120       130                   the newest score: 115, 130
    #   events    10     20   .    30

    async def scenario() -> None:
        outbox = Outbox()
        agent = agent_of(outbox)
        agent.saw([score("head", 115)])
        async with aclosing(agent.work(batch([score("a", 10), score("b", 20), b"no score", score("c", 30)]))) as steps:
            assert await anext(steps) == 1
            assert await anext(steps) == 1
            assert agent.waiting == {SCORES}
            assert [label for _, label in outbox.sent] == [Label("a", 110, 0, assumed=True)]
            agent.saw([score("head", 130), score("behind", 90), b"no score"])
            assert await anext(steps) == 4
            assert agent.waiting == set()
            assert sorted(label.label_time for _, label in outbox.sent) == [110, 120, 130]
            with pytest.raises(StopAsyncIteration):
                await anext(steps)

    run(scenario())


def test_stream_time_never_goes_back() -> None:
    """A late event at the head undoes nothing; an unreadable record says nothing."""

    async def scenario() -> None:
        outbox = Outbox()
        agent = agent_of(outbox)
        for newest in [score("x", 200)], [score("y", 3)], [b"{"], []:
            agent.saw(newest)
        assert [step async for step in agent.work(batch([score("a", 100)]))] == [1]

    run(scenario())


def test_an_event_from_the_future_holds_up_nobody() -> None:
    """An event that is ahead of the clock was there when it was scored: neither it nor those behind it wait for
    that future, and as the newest it does not bring it about."""
    early = score("early", 10_000, scored_at=20)
    assert assumptions(batch([early]).records, HORIZON) == ([0], [Label("early", 120, 0, assumed=True)])
    found = read_score(early)
    assert found
    assert found.time == 20


@given(st.lists(st.integers(0, 60), min_size=1, max_size=12), st.lists(st.integers(0, 40), max_size=30), st.data())
@settings(deadline=None, max_examples=100)
def test_killed_at_any_time_every_event_is_labelled_when_due(
    times: list[int], ticks: list[int], data: st.DataObject
) -> None:
    """However the clock goes and whenever the process dies: nothing is committed that is not labelled, no label is
    early, and once the clock has passed all horizons everything is labelled, where the event's other labels are."""

    async def scenario() -> None:
        outbox, committed, now = Outbox(), 0, 0
        scores = [score(f"e{number}", time) for number, time in enumerate(times)]

        async def live(ticks: Sequence[int]) -> None:
            nonlocal committed, now
            agent = agent_of(outbox)
            if committed == len(scores):
                return
            async with aclosing(agent.work(batch(scores[committed:], committed))) as steps:
                for tick in ticks:
                    now += tick
                    agent.saw([score("head", now)])
                    try:
                        low = await anext(steps)
                    except StopAsyncIteration:
                        return
                    assert all(label.label_time <= now for _, label in outbox.sent)
                    assert {f"e{number}" for number in range(low)} <= {label.event_id for _, label in outbox.sent}
                    if data.draw(st.booleans()):
                        committed = low

        for tick in ticks:
            await live([tick] * data.draw(st.integers(1, 3)))
        now = 1000
        await live([0] * (len(scores) + 1))
        labels = {label.event_id: label for _, label in outbox.sent}
        assert labels == {f"e{i}": Label(f"e{i}", time + HORIZON, 0, assumed=True) for i, time in enumerate(times)}
        assert len({(label.event_id, label.label_time) for _, label in outbox.sent}) == len(scores)
        places = partition_of(Spans.of([label.event_id.encode() for _, label in outbox.sent]), LABELS.partitions)
        assert places.tolist() == [partition for partition, _ in outbox.sent]

    run(scenario())


def test_a_batch_without_scores_is_passed() -> None:
    """Nothing to label is no reason to stop."""

    async def scenario() -> None:
        outbox = Outbox()
        assert [step async for step in agent_of(outbox).work(batch([None, b"[]"]))] == [2]
        assert outbox.sent == []

    run(scenario())


def test_many_are_sent_in_runs() -> None:
    """A backlog leaves a thousand at a time, in order."""

    async def scenario() -> None:
        outbox = Outbox()
        agent = agent_of(outbox)
        agent.saw([score("head", 10_000)])
        steps = [step async for step in agent.work(batch([score(f"e{i}", i) for i in range(2500)], first=7))]
        assert steps == [1007, 2007, 2507]
        assert len(outbox.sent) == 2500

    run(scenario())
