"""Payments for two stages in memory, and what must come of them.

That is what the backtest's pipeline makes of them: features and states must equal it bit for bit.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from schemas.events import Score
from streams.features.pipeline import Events, Labels, Pipeline
from streams.features.spec import DAY, HOUR
from streams.stores.memory import MemoryStateStore
from streams.usecases import FRAUD
from tests.unit.streams.world import CUSTOMER, NOW, TERMINAL, World

START = NOW - 120 * DAY  # so that twelve payments nine days apart are over by now: later ones would be refused
STAGES = (CUSTOMER, TERMINAL)
decode = msgspec.json.Decoder(Score).decode


@dataclass(frozen=True)
class Payment:
    """A transaction, and after `delay` its label."""

    id: str
    time: int
    customer: str
    terminal: str
    amount: float
    label: int = 0
    delay: int | None = None

    @property
    def fields(self) -> dict[str, object]:
        return {
            "event_id": self.id,
            "event_time": self.time,
            "customer_id": self.customer,
            "terminal_id": self.terminal,
            "amount": self.amount,
        }


def expected(payments: Sequence[Payment]) -> tuple[dict[str, bytes], list[dict[bytes, bytes]]]:
    """Each event's feature vector as bytes and each stage's states, by the backtest's pipeline."""
    labelled = sorted((p for p in payments if p.delay is not None), key=lambda p: p.time + (p.delay or 0))

    def keys(rows: Sequence[Payment]) -> dict[str, list[bytes]]:
        return {"customer": [p.customer.encode() for p in rows], "terminal": [p.terminal.encode() for p in rows]}

    def ids(rows: Sequence[Payment]) -> list[bytes]:
        return [p.id.encode() for p in rows]

    times = np.array([p.time for p in payments], np.int64)
    events = Events(ids(payments), times, keys(payments), np.array([[p.amount] for p in payments]).reshape(-1, 1))
    known = np.array([p.time + (p.delay or 0) for p in labelled], np.int64)
    labels = Labels(ids(labelled), known, keys(labelled), np.array([p.label for p in labelled], np.float64))
    pipeline = Pipeline(FRAUD.features)
    vectors = pipeline.fold(events, labels)
    return (
        {p.id: vector.tobytes() for p, vector in zip(payments, vectors, strict=True)},
        [table.states() for table in pipeline.tables],
    )


def scores(world: World) -> dict[str, Score]:
    """The scores by event; one that was written twice is the same both times."""
    found = dict[str, Score]()
    for message in world.broker.all(world.topics.scores.name):
        score = decode(message.value or b"")
        assert found.setdefault(score.event_id, score) == score
    return found


async def check(world: World, payments: Sequence[Payment]) -> None:
    """Compare scores, states in memory and states in the store with the backtest's."""
    vectors, states = expected(payments)
    found = {id_: np.array(list(score.features.values())).tobytes() for id_, score in scores(world).items()}
    assert found == vectors
    for stage in STAGES:
        kept = await world.kept(stage, list(states[stage]))
        assert kept == states[stage]
        in_memory = world.states(stage)
        assert in_memory == {key: states[stage][key] for key in in_memory}


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 60))


PAYMENTS = [
    Payment(f"e{i}", START + i * HOUR, f"c{i % 3}", f"t{i % 4}", 10.0 + i / 7) for i in range(12)
]  # fmt: skip


async def started(payments: Sequence[Payment], partitions: int = 1, store: MemoryStateStore | None = None) -> World:
    world = World(partitions, store)
    for payment in payments:
        world.event(payment.fields)
    for stage in STAGES:
        await world.start(stage)
    return world
