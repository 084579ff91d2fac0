"""The bootstrap of the history process: history, join and registry in one consumer group, around one Cassandra.

They share nothing but that: partitions are fetched and committed one by one, so labels that wait for an event never
hold up the scores that would bring it, and a large model neither.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

from aiokafka.errors import KafkaError
from faust.types import TP

from schemas.topics import Topic
from streams.agents.deadletters import DeadLetters
from streams.agents.history import HistoryAgent
from streams.agents.join import JoinAgent
from streams.agents.registry import RegistryAgent
from streams.agents.waiting import Step
from streams.metrics import Metrics
from streams.runtime.batches import BatchApp, Ownership, create_app
from streams.runtime.health import Health, Standing
from streams.runtime.lanes import Lanes, Work
from streams.runtime.monitor import Monitor
from streams.runtime.offsets import GroupOffsets
from streams.runtime.sender import Sender
from streams.settings import Settings
from streams.stores.cassandra import CassandraHistory
from streams.stores.registry_cassandra import CassandraRegistry
from streams.usecases import UseCase

log = logging.getLogger(__name__)

SHOW_SECONDS = 1.0


class HistoryWorker:
    """History, join and registry of a use case in one process; start as many as there are partitions."""

    def __init__(self, usecase: UseCase, settings: Settings, metrics: Metrics) -> None:
        group = usecase.group("history")
        self._topics = topics = usecase.topics(settings.partitions)
        self._metrics = metrics
        self.health = Health(("kafka", "cassandra"), metrics, settings.stall_seconds)
        self._store = CassandraHistory(
            settings.cassandra, settings.keyspace, usecase.full_name, self._retried("cassandra")
        )
        self._models = CassandraRegistry(
            settings.cassandra, settings.keyspace, usecase.full_name, self._retried("cassandra")
        )
        self._sender = sender = Sender(settings.kafka, group)
        self._offsets = GroupOffsets(settings.kafka, group, self._retried("kafka"))
        self._stages = stages = GroupOffsets(settings.kafka, usecase.group("stages"), self._retried("kafka"))
        self.app: BatchApp = create_app(
            group,
            settings.kafka,
            Ownership(self._positions, self._revoking, self._assigned),
            session_timeout=settings.session_seconds,
            heartbeat_interval=settings.session_seconds / 5,
            instance=settings.instance,
        )
        dead_letters = DeadLetters(sender, topics.dlq.name, metrics)
        history = HistoryAgent(self._store, dead_letters, metrics, settings.max_ahead_ms)
        self._published = (
            CassandraHistory(settings.cassandra, settings.keyspace, usecase.name, self._retried("cassandra"))
            if usecase.deployment
            else None
        )
        way = [*(Step(stages, topic) for topic in (topics.events, *topics.hops)), Step(self._offsets, topics.scores)]
        self._join = join = JoinAgent(
            usecase, settings, self._store, sender, way, dead_letters, metrics, self._published
        )
        registry = RegistryAgent(self._models, metrics)
        agents: dict[str, tuple[Topic, Work]] = {
            "history": (topics.scores, history.work),
            "join": (topics.labels, join.work),
            "models": (topics.models, registry.keep_models),
            "aliases": (topics.aliases, registry.keep_changes),
        }
        self._lanes = {topic.name: Lanes(self.app, work) for topic, work in agents.values()}
        for name, (topic, _) in agents.items():
            self.app.on_batch(topic.name, name=name)(self._lanes[topic.name].put)
        self._sources = [topic for topic, _ in agents.values()]
        pings = {"cassandra": self._store.ping}
        self._monitor = Monitor(self.health, settings.kafka, self._sources, self._standings, pings)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything the app needs around it, from before its start until after its stop."""
        async with AsyncExitStack() as stack:
            if self._published:
                await self._published.start()
                stack.push_async_callback(self._published.close)
            for resource, stop in (
                (self._store, self._store.close),
                (self._models, self._models.close),
                (self._sender, self._sender.stop),
                (self._offsets, self._offsets.stop),
                (self._stages, self._stages.stop),
            ):
                await resource.start()
                stack.push_async_callback(stop)
            for topic in self._topics:
                await self._sender.partitions(topic.name)
            stack.push_async_callback(self._give_up)
            showing = asyncio.create_task(self._show_lag())
            stack.callback(showing.cancel)
            await stack.enter_async_context(self._monitor.running(self.app))
            yield

    def _retried(self, store: str) -> Callable[[Exception], None]:
        return partial(self.health.retried, store)

    def _standings(self) -> Mapping[TP, Standing]:
        return {tp: self._lanes[tp.topic].standing(tp, taken) for tp, taken in self.app.reached().items()}

    async def _positions(self, partitions: set[TP]) -> Mapping[TP, int]:
        with self.health.working("taking partitions over"):
            committed = await self._offsets.committed(partitions)
        for tp, offset in committed.items():
            self._lanes[tp.topic].done[tp] = offset
        return committed

    async def _assigned(self, partitions: set[TP]) -> None:
        self.app.resume(partitions)
        log.info("ready, with %d partitions", len(partitions))

    async def _revoking(self, _partitions: set[TP]) -> None:
        with self.health.working("giving partitions up"):
            await self._give_up()

    async def _give_up(self) -> None:
        await asyncio.gather(*(lanes.give_up() for lanes in self._lanes.values()))
        self._join.forget()

    async def _show_lag(self) -> None:
        """Show what is not kept yet, also while nothing moves, until cancelled."""
        while True:
            await asyncio.sleep(SHOW_SECONDS)
            with suppress(KafkaError):  # the next round asks again
                ends = {
                    tp: end
                    for topic in self._sources
                    for tp, end in (await self._offsets.ends(topic.name, topic.partitions)).items()
                }
                self._metrics.lag.clear()  # of partitions that others have now
                for lanes in self._lanes.values():
                    for tp, done in lanes.done.items():
                        self._metrics.lag.labels(tp.topic, str(tp.partition)).set(max(ends[tp] - max(done, 0), 0))
