"""The bootstrap: settings and a use case become a running worker, everything passed in."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

from faust.types import TP

from streams.agents.lists import ListFeed
from streams.agents.models import ModelFeed
from streams.agents.scoring import ServingModel
from streams.agents.stage import StageAgent
from streams.decisions.lists import EntityLists
from streams.metrics import Metrics
from streams.runtime import faults
from streams.runtime.batches import EARLIEST, Batch, BatchApp, Handler, Ownership, create_app
from streams.runtime.checkpoint import OwnedPartition, checkpoint_all, evict_all
from streams.runtime.health import Health, Standing
from streams.runtime.monitor import Monitor
from streams.runtime.sender import Sender
from streams.settings import Settings
from streams.stores.entity_snapshots_cassandra import CassandraEntitySnapshots
from streams.stores.patient import PatientStore
from streams.stores.redis import RedisStateStore
from streams.stores.snapshot_store import SnapshotStore
from streams.stores.state import Fenced, SnapshotsUnavailable, StoreUnavailable
from streams.usecases import UseCase

log = logging.getLogger(__name__)

IDLE_SECONDS = 1.0
ROOM_SECONDS = 0.05  # between two attempts to make room


class StageWorker:
    """Every stage of a use case in one process: agents, checkpoints, models and metrics around one Faust app."""

    def __init__(self, usecase: UseCase, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._topics = topics = usecase.topics(settings.partitions)
        # Event times may be ahead of the clock, and are behind it by as long as Kafka kept an event for us.
        ttl = usecase.features.longest_keep + settings.max_ahead_ms + topics.events.retention_ms
        self._store = RedisStateStore(settings.redis, ttl)
        self.health = Health(("kafka", "redis"), metrics, settings.stall_seconds)
        self._sender = Sender(settings.kafka, usecase.group("stages"))
        self._agents: dict[str, StageAgent] = {}
        self._inputs: dict[str, TP] = {}  # by the name of the state that is made of it
        self.app: BatchApp = create_app(
            usecase.group("stages"),
            settings.kafka,
            Ownership(self._claim, self._revoking, self._ready),
            session_timeout=settings.session_seconds,
            heartbeat_interval=settings.session_seconds / 5,
            instance=settings.instance,
        )
        self._snapshots = CassandraEntitySnapshots(
            settings.cassandra, settings.keyspace, ttl, partial(self.health.retried, "cassandra")
        )
        self._archived = SnapshotStore(self._store, self._snapshots, self._begin, self.health.moved)
        store = PatientStore(self._archived, self._on_retry, lambda: self.app.should_stop)
        for index, stage in enumerate(usecase.features.stages):
            agent = StageAgent(usecase, index, topics, self._sender, store, metrics, settings.max_ahead_ms)
            self._agents[agent.topic.name] = agent
            self._inputs |= {
                usecase.states(stage, number): TP(agent.topic.name, number) for number in range(agent.topic.partitions)
            }
            self.app.on_batches(agent.topic.name, name=stage.entity)(self._handler(agent))
        sources = [agent.topic for agent in self._agents.values()]
        self._monitor = Monitor(self.health, settings.kafka, sources, self._standings, {"redis": self._store.ping})
        self._models = ModelFeed(usecase, settings.kafka, topics, settings.signing_key(), metrics, self._swap)
        lists = EntityLists(usecase.verdicts, usecase.entities)
        for agent in self._agents.values():
            agent.lists = lists
        self._lists = ListFeed(settings.kafka, topics.lists, metrics, lists)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything the app needs around it, from before its start until after its stop."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._store.close)
            stack.push_async_callback(self._snapshots.close)
            await self._store.ping()
            for resource in self._sender, self._models, self._lists:
                await resource.start()
                stack.push_async_callback(resource.stop)
            for topic in self._topics:
                await self._sender.partitions(topic.name)
            for work in self._tend(), self._show(), self._archive():
                stack.push_async_callback(_end, asyncio.create_task(work))
            await stack.enter_async_context(self._monitor.running(self.app))
            yield

    def _standings(self) -> Mapping[TP, Standing]:
        return {tp: Standing(offset) for tp, offset in self.app.reached().items()}

    def _swap(self, model: ServingModel) -> None:
        for agent in self._agents.values():
            agent.model = model

    async def _claim(self, partitions: set[TP]) -> Mapping[TP, int]:
        try:
            with self.health.working("taking partitions over", "cassandra"):
                offsets = await asyncio.gather(*(self._agents[tp.topic].claim(tp.partition) for tp in partitions))
        except asyncio.CancelledError:
            self._release(partitions)
            raise
        return dict(zip(partitions, offsets, strict=True))

    async def _revoking(self, partitions: set[TP]) -> None:
        try:
            with self.health.working("giving partitions up"):
                await self._checkpoint()
            faults.point("given-up")
        except StoreUnavailable as error:
            log.warning("partitions are given up without a checkpoint, their owner does more again: %s", error)
        self._release(partitions)

    def _release(self, partitions: set[TP]) -> None:
        for tp in partitions:
            self._agents[tp.topic].release(tp.partition)

    async def _ready(self, partitions: set[TP]) -> None:
        faults.point("assigned")
        log.info("ready, with %d partitions", len(partitions))

    def _handler(self, agent: StageAgent) -> Handler:
        """Return the agent's handler, run once there is room in memory and the last stage's output is on its way."""

        async def on_batches(batches: Sequence[Batch]) -> None:
            await self._make_room(batches[0].generation)
            await self._sender.written()
            await agent.on_batches(batches)

        return on_batches

    async def _make_room(self, generation: int) -> None:
        """Return once there are not far too many entities in memory, or another generation of partitions has come.

        None can be evicted before it is kept: while Redis is away, it waits, or new ones would fill the memory.
        """
        most = self._settings.max_entities * 5 // 4
        while sum(len(one.table) for one in self._owned()) > most:
            if self.app.should_stop or generation != self.app.batches.generation:
                return  # whoever gives the partitions up waits for this
            try:
                await checkpoint_all(self._owned(), self._sender, self._metrics)
                await evict_all(self._owned(), self._settings.max_entities, self._metrics)
            except StoreUnavailable as error:
                self._on_retry(error)
            await asyncio.sleep(ROOM_SECONDS)

    def _owned(self) -> list[OwnedPartition]:
        return [owned for agent in self._agents.values() for owned in agent.owned.values()]

    async def _checkpoint(self) -> None:
        await checkpoint_all(self._owned(), self._sender, self._metrics)
        await self._commit()

    async def _commit(self) -> None:
        """Step 5: tell Kafka what is kept."""
        reached = self.app.reached()
        kept = {
            tp: owned.done(reached.get(tp, EARLIEST))
            for agent in self._agents.values()
            for tp, owned in ((TP(agent.topic.name, partition), one) for partition, one in agent.owned.items())
        }
        await self.app.commit_positions({tp: offset for tp, offset in kept.items() if offset >= 0})
        faults.point("committed")

    async def _checkpoint_in_turn(self) -> None:
        """Checkpoint every partition once, evenly over the interval: all at once would be felt as a pause."""
        owned = self._owned()
        share = self._settings.checkpoint_seconds / max(1, len(owned))
        for one in owned:
            await asyncio.sleep(share)
            try:
                with self.health.working("a checkpoint"):
                    await checkpoint_all([one], self._sender, self._metrics)
            except StoreUnavailable as error:
                self._on_retry(error)  # others may be elsewhere; this one has its turn again
        if not owned:
            await asyncio.sleep(share)
        await evict_all(owned, self._settings.max_entities, self._metrics)
        await self._commit()

    async def _tend(self) -> None:
        """Checkpoint and look after the gates, until cancelled."""
        while True:
            try:
                await self._checkpoint_in_turn()
                with self.health.working("a look after the gates"):
                    for agent in self._agents.values():
                        await agent.give_up_late_watermarks(self._settings.watermark_wait_seconds)
            except StoreUnavailable as error:
                self._on_retry(error)
            except Exception as error:
                await self.app.crash(error)
                return

    async def _archive(self) -> None:
        """Bring the snapshots of the partitions up to date, one after the other, until cancelled."""
        while True:
            owned = self._owned()
            share = self._settings.entity_snapshot_seconds / max(1, len(owned))
            for one in owned:
                await asyncio.sleep(share)
                try:
                    await self._archive_one(one)
                except Exception as error:
                    await self.app.crash(error)
                    return
            if not owned:
                await asyncio.sleep(min(share, IDLE_SECONDS))

    async def _archive_one(self, one: OwnedPartition) -> None:
        stage, began = one.table.stage.entity, time.perf_counter()
        try:
            written = await self._archived.archive(one.name)
        except Fenced:
            return  # no more ours; the next save says so, unless it has been given up
        except StoreUnavailable as error:
            self._on_retry(error)
            return
        if written is not None:
            self._metrics.snapshot_entities.labels(stage).inc(written)
            self._metrics.snapshot_seconds.labels(stage).observe(time.perf_counter() - began)

    async def _begin(self, name: str) -> int:
        return (await self._monitor.begins())[self._inputs[name]]

    async def _show(self) -> None:
        """Show where the worker stands, also while a store is away and nothing moves, until cancelled."""
        while True:
            await asyncio.sleep(self._settings.checkpoint_seconds)
            try:
                self._show_once()
            except Exception as error:
                await self.app.crash(error)
                return

    def _show_once(self) -> None:
        for gauge in self._metrics.lag, self._metrics.held:
            gauge.clear()  # of partitions that others have now
        with suppress(AssertionError):  # aiokafka's, of a partition that is just being given up
            for tp, lag in self.app.lag().items():
                self._metrics.lag.labels(tp.topic, str(tp.partition)).set(lag)
        for agent in self._agents.values():
            agent.show(self._metrics)

    def _on_retry(self, error: StoreUnavailable) -> None:
        self.health.retried("cassandra" if isinstance(error, SnapshotsUnavailable) else "redis", error)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
