"""The worker around its app: what it opened is closed, and it shows what it owns, not what it owned."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaError
from faust.types import TP

from infra.local.ports import free_port
from streams.app import StageWorker
from streams.metrics import Metrics
from streams.runtime.batches import Batch
from streams.settings import Settings
from streams.stores.memory import MemoryStateStore
from streams.stores.state import Claim, StoreUnavailable
from streams.usecases import FRAUD


def built() -> tuple[StageWorker, Metrics]:
    """A worker whose servers are not there."""
    metrics = Metrics("worker")
    settings = Settings(kafka=f"127.0.0.1:{free_port()}", redis=f"redis://127.0.0.1:{free_port()}", model_key=b"k" * 32)
    return StageWorker(FRAUD, settings, metrics), metrics


class Store:
    """A store that answers; whether it has been closed is in `closed`."""

    closed = False

    async def ping(self) -> None:
        return

    async def close(self) -> None:
        self.closed = True


def test_a_start_that_fails_closes_what_it_opened() -> None:
    """Kafka is away: the store, which was there, is left."""
    store = Store()

    async def scenario() -> None:
        worker, _ = built()
        worker._store = store  # type: ignore[assignment]
        async with worker.running():
            pass

    with pytest.raises(KafkaError):
        asyncio.run(scenario())
    assert store.closed


def test_partitions_of_others_have_no_gauges() -> None:
    """After a rebalance only what is owned is shown: a lag of old would look as if nobody worked on it."""

    async def scenario() -> Metrics:
        worker, metrics = built()
        metrics.lag.labels("fraud.transactions", "9").set(5)
        metrics.held.labels("terminal", "9").set(5)
        worker._show_once()
        return metrics

    metrics = asyncio.run(scenario())
    shown = [one for gauge in (metrics.lag, metrics.held) for family in gauge.collect() for one in family.samples]
    assert shown == []


class Halting(MemoryStateStore):
    """A store that answers for all partitions but one."""

    def __init__(self, but: str) -> None:
        super().__init__()
        self._but = but
        self.waiting = asyncio.Event()

    async def claim(self, partition: str) -> Claim:
        if self._but in partition:
            await asyncio.sleep(0)  # the others are claimed
            self.waiting.set()
            await asyncio.Event().wait()
        return await super().claim(partition)


def test_a_claim_that_is_cut_short_leaves_nothing_claimed() -> None:
    """A rebalance cancels it while Redis is away: what had been claimed already is forgotten."""

    async def scenario() -> None:
        worker, _ = built()
        store = Halting(but="terminal")
        agents = list(worker._agents.values())
        for agent in agents:
            agent._store = store
        claim = asyncio.create_task(worker._claim({TP(agent.topic.name, 0) for agent in agents}))
        await store.waiting.wait()
        assert agents[0].owned
        claim.cancel()
        with pytest.raises(asyncio.CancelledError):
            await claim
        assert not agents[0].owned

    asyncio.run(scenario())


class Entities(list[None]):
    """A table, as far as it is asked here."""

    stage = FRAUD.features.stages[0]


class Idle:
    """A sender for which nothing waits."""

    async def written(self) -> None:
        return


class Unkept:
    """A partition whose checkpoints fail, as Redis is away; it is its agent as well."""

    def __init__(self, entities: int) -> None:
        self.table, self.owned = Entities([None] * entities), {0: self}
        self.tried = asyncio.Event()
        self.worked = 0

    async def checkpoint(self, _: object) -> int:
        self.tried.set()
        raise StoreUnavailable("away")

    async def on_batches(self, _: Sequence[Batch]) -> None:
        self.worked += 1


def test_far_too_many_entities_hold_up_the_next_batch() -> None:
    """None of them can be evicted while Redis is away; once there is room the batch is worked on."""

    async def scenario() -> None:
        worker, _ = built()
        worker._settings = replace(worker._settings, max_entities=10)
        agent: Any = Unkept(entities=20)
        worker._agents = {"topic": agent}
        worker._sender = cast(Any, Idle())
        batch: Any = SimpleNamespace(generation=worker.app.batches.generation)
        handling = asyncio.create_task(worker._handler(agent)([batch]))
        await asyncio.wait_for(agent.tried.wait(), 10)
        assert not agent.worked
        agent.table.clear()
        await asyncio.wait_for(handling, 10)
        assert agent.worked == 1

    asyncio.run(scenario())
