"""The bootstrap: settings and a use case become a running worker, everything passed in."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from faust.types import TP

from streams.agents.models import ModelFeed
from streams.agents.scoring import ServingModel
from streams.agents.stage import StageAgent
from streams.metrics import Metrics
from streams.runtime.batches import BatchApp, Ownership, create_app
from streams.runtime.checkpoint import OwnedPartition, checkpoint_all
from streams.runtime.sender import Sender
from streams.settings import Settings
from streams.stores.redis import RedisStateStore, StoreUnavailable
from streams.usecases import UseCase

log = logging.getLogger(__name__)


class StageWorker:
    """Every stage of a use case in one process: agents, checkpoints, models and metrics around one Faust app."""

    def __init__(self, usecase: UseCase, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._topics = topics = usecase.topics(settings.partitions)
        self._store = RedisStateStore(settings.redis, usecase.features.longest_keep)
        self._sender = Sender(settings.kafka, f"{usecase.name}-stages")
        self._agents: dict[str, StageAgent] = {}
        self.app: BatchApp = create_app(
            f"{usecase.name}-stages",
            settings.kafka,
            Ownership(self._claim, self._revoking, self._ready),
            session_timeout=settings.session_seconds,
            heartbeat_interval=settings.session_seconds / 5,
        )
        for index, stage in enumerate(usecase.features.stages):
            agent = StageAgent(usecase, index, topics, self._sender, self._store, metrics, settings.max_ahead_ms)
            self._agents[agent.topic.name] = agent
            self.app.on_batches(agent.topic.name, name=stage.entity)(agent.on_batches)
        self._models = ModelFeed(
            usecase, settings.kafka, topics.models.name, settings.signing_key(), metrics, self._swap
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything the app needs around it, from before its start until after its stop."""
        await self._store.ping()
        await self._sender.start()
        for topic in self._topics:
            await self._sender.partitions(topic.name)
        await self._models.start()
        tending = asyncio.create_task(self._tend())
        try:
            yield
        finally:
            tending.cancel()
            with suppress(asyncio.CancelledError):
                await tending
            await self._models.stop()
            await self._sender.stop()
            await self._store.close()

    def _swap(self, model: ServingModel) -> None:
        for agent in self._agents.values():
            agent.model = model

    async def _claim(self, partitions: set[TP]) -> Mapping[TP, int]:
        offsets = await asyncio.gather(*(self._agents[tp.topic].claim(tp.partition) for tp in partitions))
        return dict(zip(partitions, offsets, strict=True))

    async def _revoking(self, partitions: set[TP]) -> None:
        await self._checkpoint()
        for tp in partitions:
            self._agents[tp.topic].release(tp.partition)

    async def _ready(self, partitions: set[TP]) -> None:
        log.info("ready, with %d partitions", len(partitions))

    def _owned(self) -> list[OwnedPartition]:
        return [owned for agent in self._agents.values() for owned in agent.owned.values()]

    async def _checkpoint(self) -> None:
        await checkpoint_all(self._owned(), self._sender, self._metrics)

    async def _checkpoint_in_turn(self) -> None:
        """Checkpoint every partition once, evenly over the interval: all at once would be felt as a pause."""
        owned = self._owned()
        share = self._settings.checkpoint_seconds / max(1, len(owned))
        for one in owned:
            await asyncio.sleep(share)
            await checkpoint_all([one], self._sender, self._metrics)
        if not owned:
            await asyncio.sleep(share)

    async def _tend(self) -> None:
        """Checkpoint, look after the gates, and show where the worker stands, until cancelled."""
        while True:
            try:
                await self._checkpoint_in_turn()
                for agent in self._agents.values():
                    await agent.give_up_late_watermarks(self._settings.watermark_wait_seconds)
            except StoreUnavailable as error:
                log.warning("no checkpoint, trying again: %s", error)
                self._metrics.store_retries.labels("redis").inc()
            except Exception as error:
                await self.app.crash(error)
                return
            self._show()

    def _show(self) -> None:
        for tp, lag in self.app.lag().items():
            self._metrics.lag.labels(tp.topic, str(tp.partition)).set(lag)
        for agent in self._agents.values():
            agent.show(self._metrics)
