"""The bootstrap of a learner: settings and a use case become a running Faust app, everything passed in."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial

from faust.types import TP

from streams.agents.learner import LearnerAgent
from streams.metrics import Metrics
from streams.runtime.batches import BatchApp, Ownership, create_app
from streams.runtime.following import Follower
from streams.runtime.health import Health, Standing
from streams.runtime.monitor import Monitor
from streams.runtime.newest import newest_first
from streams.runtime.retrying import until_answered
from streams.runtime.sender import Sender
from streams.settings import Settings
from streams.usecases import UseCase

log = logging.getLogger(__name__)


class LearnerWorker:
    """One use case's learner around one Faust app; a second process stands by."""

    def __init__(self, usecase: UseCase, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._topics = topics = usecase.topics(settings.partitions)
        self._sender = Sender(settings.kafka, usecase.group("learner"))
        self.health = Health(("kafka",), metrics, settings.stall_seconds)
        announced = partial(newest_first, settings.kafka, topics.models.name)
        aliased = partial(newest_first, settings.kafka, topics.aliases.name)
        self.agent = LearnerAgent(
            usecase, topics, announced, aliased, self._sender, settings.signing_key(), metrics, settings.max_ahead_ms
        )
        self._aliases = Follower(settings.kafka, [topics.aliases.name], self.agent.follow)
        self.app: BatchApp = create_app(
            usecase.group("learner"),
            settings.kafka,
            Ownership(self._positions, self._revoking, self._ready),
            session_timeout=settings.session_seconds,
            heartbeat_interval=settings.session_seconds / 5,
            instance=settings.instance,
        )
        self.app.on_batch(topics.examples.name, name="learner")(self.agent.on_batch)
        self._monitor = Monitor(self.health, settings.kafka, [topics.examples], self._standings, {})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything the app needs around it, from before its start until after its stop."""
        await self.agent.take_up()  # one that cannot be trusted ends the process before it joins the group
        await self._sender.start()
        for topic in (self._topics.models, self._topics.aliases, self._topics.dlq):
            await self._sender.partitions(topic.name)
        await self._aliases.start()  # before partitions come, and with them what is newest in it
        self._aliases.follow()
        tending = asyncio.create_task(self._tend())
        try:
            async with self._monitor.running(self.app):
                yield
        finally:
            tending.cancel()
            with suppress(asyncio.CancelledError):
                await tending
            await self._aliases.stop()
            await self._sender.stop()

    def _standings(self) -> Mapping[TP, Standing]:
        return {tp: Standing(offset) for tp, offset in self.app.reached().items()}

    async def _positions(self, partitions: set[TP]) -> Mapping[TP, int]:
        with self.health.working("taking partitions over"):
            return await until_answered(lambda: self.agent.positions(partitions), partial(self.health.retried, "kafka"))

    async def _revoking(self, _: set[TP]) -> None:
        with self.health.working("giving partitions up"):
            await self.agent.announce()

    async def _ready(self, partitions: set[TP]) -> None:
        log.info("ready, with %d partitions", len(partitions))

    async def _tend(self) -> None:
        """Announce, and show where the learner stands, until cancelled."""
        while True:
            try:
                self._show()
                await asyncio.sleep(self._settings.snapshot_seconds)
                with self.health.working("an announcement"):
                    announced = await self.agent.announce_in_turn()
                if announced:
                    await self.app.commit_positions(
                        {
                            TP(self._topics.examples.name, at): offset
                            for at, offset in self.agent.lessons.offsets.items()
                        }
                    )
            except Exception as error:
                await self.app.crash(error)
                return

    def _show(self) -> None:
        self.agent.show()
        self._metrics.lag.clear()  # of partitions that others have now
        with suppress(AssertionError):  # aiokafka's, of a partition that is just being given up
            for tp, lag in self.app.lag().items():
                self._metrics.lag.labels(tp.topic, str(tp.partition)).set(lag)
