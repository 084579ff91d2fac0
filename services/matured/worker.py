"""The bootstrap of the matured process: one agent in a consumer group of its own, and a look at the topic's head."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from faust.types import TP

from streams.agents.matured import MaturedAgent
from streams.metrics import Metrics
from streams.runtime.batches import BatchApp, Ownership, create_app
from streams.runtime.head import Head
from streams.runtime.health import Health, Standing
from streams.runtime.lanes import Lanes
from streams.runtime.monitor import Monitor
from streams.runtime.offsets import GroupOffsets
from streams.runtime.sender import Sender
from streams.settings import Settings, SettingsError
from streams.usecases import UseCase

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0


class MaturedWorker:
    """The matured negatives of a use case in one process; start as many as there are partitions, one is enough."""

    def __init__(self, usecase: UseCase, settings: Settings, metrics: Metrics) -> None:
        group = usecase.group("matured")
        self._topics = topics = usecase.topics(settings.partitions)
        self.health = Health(("kafka",), metrics, settings.stall_seconds)
        retried = partial(self.health.retried, "kafka")
        self._sender = Sender(settings.kafka, group)
        self._offsets = GroupOffsets(settings.kafka, group, retried)
        self._head = Head(settings.kafka, topics.scores, retried)
        self._agent = MaturedAgent(topics.labels, horizon_ms(usecase, settings), self._sender, metrics)
        self.app: BatchApp = create_app(
            group,
            settings.kafka,
            Ownership(self._positions, self._revoking, self._assigned),
            session_timeout=settings.session_seconds,
            heartbeat_interval=settings.session_seconds / 5,
            instance=settings.instance,
        )
        self._lanes = Lanes(self.app, self._agent.work)
        self.app.on_batch(topics.scores.name, name="matured")(self._lanes.put)
        self._monitor = Monitor(self.health, settings.kafka, [topics.scores], self._standings, {})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything the app needs around it, from before its start until after its stop."""
        async with AsyncExitStack() as stack:
            for resource in self._sender, self._offsets, self._head:
                await resource.start()
                stack.push_async_callback(resource.stop)
            await self._sender.partitions(self._topics.labels.name)
            stack.push_async_callback(self._lanes.give_up)
            looking = asyncio.create_task(self._look())
            stack.callback(looking.cancel)
            await stack.enter_async_context(self._monitor.running(self.app))
            yield

    def _standings(self) -> Mapping[TP, Standing]:
        """Who waits for the horizon to pass is not behind."""
        standings = {tp: self._lanes.standing(tp, taken) for tp, taken in self.app.reached().items()}
        for tp in self._agent.waiting & standings.keys():
            offset, beats = standings[tp]
            standings[tp] = Standing(max(offset, self._head.ends.get(tp.partition, offset)), beats)
        return standings

    async def _positions(self, partitions: set[TP]) -> Mapping[TP, int]:
        with self.health.working("taking partitions over"):
            committed = await self._offsets.committed(partitions)
        self._lanes.done.update(committed)
        return committed

    async def _assigned(self, partitions: set[TP]) -> None:
        self.app.resume(partitions)
        log.info("ready, with %d partitions", len(partitions))

    async def _revoking(self, _: set[TP]) -> None:
        with self.health.working("giving partitions up"):
            await self._lanes.give_up()

    async def _look(self) -> None:
        """Follow stream time until cancelled."""
        try:
            while True:
                self._agent.saw(await self._head.look())
                await asyncio.sleep(LOOK_SECONDS)
        except Exception as error:
            await self.app.crash(error)


def horizon_ms(usecase: UseCase, settings: Settings) -> int:
    """Return after how long an event without a label is taken for a negative.

    Raises SettingsError where the scores are not kept for so long.
    """
    seconds = settings.label_horizon_seconds
    horizon = usecase.horizon_ms if seconds is None else int(seconds * 1000)
    kept = usecase.topics(settings.partitions).scores.retention_ms
    if not 0 < horizon < kept:
        raise SettingsError(
            f"HEADRACE_LABEL_HORIZON_SECONDS: {horizon / 1000:.15g} must be at least 0.001 and less than the "
            f"{kept / 1000:.15g} seconds for which Kafka keeps the scores"
        )
    return horizon
