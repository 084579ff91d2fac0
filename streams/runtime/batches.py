"""Faust fed in batches: an agent receives what a fetch brought, one `Batch` a partition (design D1).

It stays a Faust app with agents, timers and a consumer group; what is replaced is how records come in and
who keeps the offsets. The order of effects when partitions change hands (D2):

1. the broker asks for a rebalance: nothing more is taken from Kafka, batches that wait are dropped;
2. a batch in an agent's hands is finished, then `revoking` is awaited: the last checkpoint;
3. only now the worker tells the group that it is ready, and learns its new partitions;
4. `positions` answers where each of them continues, the consumer seeks there, `assigned` is awaited;
5. batches flow again, of the new generation only.

A crash between any two of these leaves what the last checkpoint says. If an agent or a hook raises, step 2
leaves `revoking` out (the state may hold half a batch), and the worker ends. Step 4 may take as long as it
takes; the next rebalance cancels it, and `revoking` is due only if `positions` had answered.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import faust
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.app.base import BootStrategy
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from mode.supervisors import CrashingSupervisor

from streams.features.table import StateRefused
from streams.runtime.fetching import Fetched, RawFetcher
from streams.runtime.records import Records

FAUST = "0.15.3"
if faust.__version__ != FAUST:
    raise ImportError(
        f"streams.runtime replaces parts of faust-streaming {FAUST}, but {faust.__version__} is installed; "
        "check streams/runtime/batches.py against it before changing the pin"
    )

T = TypeVar("T")
log = logging.getLogger(__name__)

EARLIEST = -1
BATCHES_AHEAD = 2  # per partition: one being worked on, one that waits for it
IDLE_POLL = 1.0  # seconds; data that arrives ends a poll at once
HELD_POLL = 0.01  # seconds, while some partition is paused or has its batches ahead
COMMIT_SECONDS = 2.0  # for what only lag tools read


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The records that one fetch brought of one partition; at least one.

    `next_offset` is what a checkpoint after this batch stores. `generation` counts the rebalances seen by
    this worker; an agent only ever receives batches of the current one.
    """

    topic: str
    partition: int
    records: Records
    next_offset: int
    generation: int

    @property
    def tp(self) -> TP:
        return TP(self.topic, self.partition)


Handler = Callable[[Sequence[Batch]], Awaitable[None]]
Positions = Callable[[set[TP]], Awaitable[Mapping[TP, int]]]
Hook = Callable[[set[TP]], Awaitable[None]]


async def _nothing(_: set[TP]) -> None:
    return


@dataclass(frozen=True, slots=True)
class Ownership:
    """What a caller does when partitions come and go; see the steps above.

    `positions` may be cancelled, and then answers for whatever it has taken by itself.
    """

    positions: Positions
    revoking: Hook = _nothing
    assigned: Hook = _nothing


@dataclass(frozen=True, slots=True)
class Fetching:
    """How much is fetched at once, and how long a fetch may wait for more; bytes and seconds."""

    max_partition_bytes: int = 1 << 20
    min_bytes: int = 1
    max_wait: float = 0.1
    linger: float = 0.004


class _Listener(driver.ConsumerRebalanceListener):
    _thread: "_Thread"

    def on_partitions_revoked(self, revoked: Iterable[Any]) -> Awaitable[None]:
        self._thread.close_generation()
        answer: Awaitable[None] = super().on_partitions_revoked(revoked)
        return answer


class _Thread(driver.AIOKafkaConsumerThread):
    """Faust's thread around aiokafka: the methods below run in its event loop, so each is atomic up to its
    next await."""

    consumer: "BatchConsumer"
    generation = 0
    open = False
    _raw: RawFetcher

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        fetching = self.consumer.app.fetching
        consumer._fetch_min_bytes = fetching.min_bytes
        consumer._fetch_max_wait_ms = int(fetching.max_wait * 1000)
        return consumer

    async def on_start(self) -> None:
        await super().on_start()
        self._raw = RawFetcher.adopt(self._ensure_consumer()._fetcher, self.consumer.app.fetching.linger)

    async def stop(self) -> None:
        if not self.thread_loop.is_closed():  # a crash has ended the thread already
            await super().stop()

    def on_crash(self, msg: str, *fmt: Any, **kwargs: Any) -> None:
        """Leave the report to the worker, which has one line for it."""

    def close_generation(self) -> None:
        self.generation += 1
        self.open = False

    async def run(self, call: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Await `call(*args)` in the thread's loop, from the main one."""
        future = asyncio.run_coroutine_threadsafe(_awaited(call, *args), self.thread_loop)
        return await asyncio.wrap_future(future)

    async def poll(self, generation: int, ready: Collection[TP], timeout: float) -> Mapping[Any, Fetched]:
        with self._raw._subscriptions.fetch_context():
            await self._raw.wait(ready, timeout)
            # Nothing may be awaited between this check and the taking: what is taken after a rebalance has
            # begun would be dropped by its receiver, though the position has moved past it.
            return self._raw.take(ready) if self.open and generation == self.generation else {}

    async def open_at(self, generation: int, positions: Mapping[TP, int]) -> dict[TP, int]:
        """Seek to where the logs can be read on, open the generation, and return the offsets."""
        consumer = self._ensure_consumer()
        partitions = [TopicPartition(*tp) for tp in positions]
        begins, ends = await asyncio.gather(consumer.beginning_offsets(partitions), consumer.end_offsets(partitions))
        if generation != self.generation:
            raise IllegalStateError("another rebalance has begun")
        offsets = {tp: _within_log(tp, offset, begins[tp], ends[tp]) for tp, offset in positions.items()}
        for tp, offset in offsets.items():
            consumer.seek(TopicPartition(*tp), offset)
        self.open = True
        return offsets

    async def commit_positions(self, positions: Mapping[TP, int]) -> None:
        consumer = self._ensure_consumer()
        assignment = consumer.assignment()
        offsets = {tp: OffsetAndMetadata(positions[TP(*tp)], "") for tp in assignment if TP(*tp) in positions}
        if offsets:
            await consumer.commit(offsets)


def _within_log(tp: TP, offset: int, begin: int, end: int) -> int:
    """Return the first offset from `offset` on that a log of [begin, end) holds or will hold."""
    if offset > end:
        raise StateRefused(
            f"{tp.topic}/{tp.partition} ends at offset {end}, but the kept state goes on at offset {offset}: "
            "the topic was made anew, or has lost records, and the state does not fit it"
        )
    if 0 <= offset < begin:
        log.warning(
            "%s/%d: offsets %d to %d are gone, as retention was shorter than the wait; reading goes on at %d",
            *tp,
            offset,
            begin - 1,
            begin,
        )
    return max(offset, begin)


async def _awaited(call: Callable[..., Awaitable[T]], *args: Any) -> T:
    return await call(*args)


class BatchConsumer(driver.Consumer):
    """Faust's consumer without acks, commits and messages of one record."""

    RebalanceListener = _Listener
    app: "BatchApp"
    _thread: _Thread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.generation = -1  # none is open
        self._ahead: Counter[TP] = Counter()
        self._handover = asyncio.Lock()
        self._opening: asyncio.Task[None] | None = None
        self._owned: set[TP] = set()
        self._broken = False  # a handler has failed inside a batch
        self._working = 0
        self._worked = asyncio.Condition()
        self._held: set[TP] = set()
        self._done: dict[TP, int] = {}

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    # -- delivery

    async def _drain_messages(self, fetcher: Any) -> None:
        while not (self.should_stop or fetcher.should_stop):
            generation, assigned = self.generation, self._done.keys()
            if generation < 0 or not assigned:
                await self.sleep(HELD_POLL)
                continue
            ready = {tp for tp in assigned if self._ahead[tp] < BATCHES_AHEAD} - self._held
            timeout = IDLE_POLL if len(ready) == len(assigned) else HELD_POLL
            fetched = await self._thread.run(self._thread.poll, generation, ready, timeout)
            by_topic: dict[str, list[Batch]] = {}
            for tp, (records, next_offset) in fetched.items():
                batch = Batch(tp.topic, tp.partition, records, next_offset, generation)
                by_topic.setdefault(tp.topic, []).append(batch)
            for batches in by_topic.values():
                await self._deliver(batches)

    async def _deliver(self, batches: Sequence[Batch]) -> None:
        if batches[0].generation == self.generation:
            self._ahead.update(batch.tp for batch in batches)
            await self.callback(_message(batches, self.app.consumer_generation_id))

    async def work(self, batches: Sequence[Batch], handler: Handler) -> None:
        """Give batches of one fetch to an agent's handler, unless a rebalance has made them stale."""
        if batches[0].generation != self.generation:
            return
        self._working += 1
        try:
            await handler(batches)
            self._done.update({batch.tp: batch.next_offset for batch in batches})
        except BaseException:
            self._broken = True
            raise
        finally:
            self._working -= 1
            self._ahead.subtract(batch.tp for batch in batches)
            async with self._worked:
                self._worked.notify_all()

    def ack(self, *_: Any) -> bool:
        """Acknowledge nothing: what counts is the caller's checkpoint."""
        return False

    # -- partitions that come and go

    async def give_up(self) -> None:
        """Finish the batches in hand, then let the owner of the state make its last checkpoint."""
        self.generation = -1
        if self._opening:
            self._opening.cancel()
        if self.app.crashed:
            return
        async with self._handover:  # the opening has ended
            async with self._worked:
                await self._worked.wait_for(lambda: not self._working)
            self._done = {}
            owned, self._owned = self._owned, set()
            if owned and not self._broken:
                await self.app.ownership.revoking(owned)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        if not self.app.should_stop:
            try:
                await self.give_up()
            except Exception as error:
                await self.app.crash(error)
        await super().on_partitions_revoked(revoked)

    async def perform_seek(self) -> None:
        """Called by Faust when a rebalance has brought partitions, before any record is read.

        Faust ends its part for good where this takes longer than a request may, so the work is a task of our own.
        """
        if not self.app.should_stop:
            self._opening = asyncio.create_task(self._open(self._thread.generation, self.assignment()))

    async def _open(self, generation: int, assigned: set[TP]) -> None:
        try:
            async with self._handover:
                await self._open_at_positions(generation, assigned)
        except Exception as error:
            if not isinstance(error, IllegalStateError) or generation == self._thread.generation:
                await self.app.crash(error)

    async def _open_at_positions(self, generation: int, assigned: set[TP]) -> None:
        answered = await self.app.ownership.positions(set(assigned))
        self._owned = set(assigned)  # from now on `revoking` is due, whatever happens below
        positions = {tp: answered.get(tp, EARLIEST) for tp in assigned}
        offsets = await self._thread.run(self._thread.open_at, generation, positions)
        await self.app.ownership.assigned(set(assigned))
        if generation == self._thread.generation:
            self._ahead.clear()
            self._held &= assigned
            self._done = offsets
            self.generation = generation

    # -- offsets: ours

    async def commit(self, *_: Any, **__: Any) -> bool:
        return False

    async def on_task_error(self, *_: Any) -> None:
        """Commit nothing."""

    def verify_event_path(self, *_: Any) -> None:
        """Complain of nothing: Faust looks for its own commits here."""

    async def commit_positions(self, positions: Mapping[TP, int]) -> None:
        if not positions or self.app.crashed:  # before its start, or after a crash, there is no thread to ask
            return
        try:
            async with asyncio.timeout(COMMIT_SECONDS):
                await self._thread.run(self._thread.commit_positions, positions)
        except (CommitFailedError, IllegalStateError) as error:
            log.debug("offsets were not committed, as partitions change: %r", error)
        except (KafkaError, TimeoutError) as error:
            log.warning("offsets were not committed; lag tools are behind: %r", error)

    def hold(self, partitions: Iterable[TP]) -> None:
        self._held |= set(partitions)

    def release(self, partitions: Iterable[TP]) -> None:
        self._held -= set(partitions)

    def lag(self) -> dict[TP, int]:
        ends = {tp: self.highwater(tp) for tp in self._done}
        return {tp: max(end - self._done[tp], 0) for tp, end in ends.items() if end is not None}


def _message(batches: Sequence[Batch], faust_generation: int) -> ConsumerMessage:
    """One Faust message; it goes by the name of the first batch."""
    first = batches[0]
    return ConsumerMessage(
        first.topic,
        first.partition,
        first.next_offset - 1,
        float(first.records.timestamps[-1]) / 1000,
        0,
        [],
        None,
        cast(bytes, batches),  # the raw codec passes them on as they are
        None,
        tp=first.tp,
        generation_id=faust_generation,
    )


class _Transport(driver.Transport):
    Consumer = BatchConsumer


class _Boot(BootStrategy):
    enable_web = False
    enable_kafka_producer = False  # `Sender` sends; Faust's own producer is never connected


class BatchApp(faust.App):
    """A Faust app whose agents receive batches; made by `create_app`."""

    BootStrategy = _Boot
    ownership: Ownership
    fetching: Fetching
    addresses: list[str]

    @property
    def source_topics(self) -> set[str]:
        """The topics that the registered agents read."""
        return {topic for agent in self.agents.values() for topic in agent.get_topic_names()}

    @property
    def batches(self) -> BatchConsumer:
        return cast(BatchConsumer, self.consumer)

    def on_batch(
        self, topic: str, name: str
    ) -> Callable[[Callable[[Batch], Awaitable[None]]], Callable[[Batch], Awaitable[None]]]:
        """Register a handler of single batches; see `on_batches`."""

        def register(handler: Callable[[Batch], Awaitable[None]]) -> Callable[[Batch], Awaitable[None]]:
            async def each(batches: Sequence[Batch]) -> None:
                for batch in batches:
                    await handler(batch)

            self.on_batches(topic, name)(each)
            return handler

        return register

    def on_batches(self, topic: str, name: str) -> Callable[[Handler], Handler]:
        """Register a handler as the Faust agent `name` that reads `topic`.

        It gets at once what a fetch brought: one batch a partition, of as many partitions as had something. A
        handler that raises ends the worker, with its batches neither counted nor given up as done.
        """

        def register(handler: Handler) -> Handler:
            async def agent(stream: Any) -> None:
                async for batches in stream:
                    try:
                        await self.batches.work(batches, handler)
                    except Exception as error:
                        await self.crash(error)
                        await asyncio.Event().wait()  # until the worker has ended: take nothing more

            source = self.topic(topic, key_serializer="raw", value_serializer="raw")
            self.agent(source, name=name, concurrency=1, supervisor_strategy=CrashingSupervisor)(agent)
            return handler

        return register

    async def commit_positions(self, positions: Mapping[TP, int]) -> None:
        """Commit offsets to Kafka, which only lag tools read; a failure is logged."""
        await self.batches.commit_positions(positions)

    def pause(self, partitions: Iterable[TP]) -> None:
        """Take no further batches of the partitions; what an agent already has stays with it."""
        self.batches.hold(partitions)

    def resume(self, partitions: Iterable[TP]) -> None:
        """Take batches of the partitions again."""
        self.batches.release(partitions)

    def lag(self) -> dict[TP, int]:
        """Records between the last batch finished and the end, for each partition fetched so far."""
        return self.batches.lag()

    async def on_stop(self) -> None:
        if self._consumer is not None:
            try:
                await self.batches.give_up()
            except Exception as error:
                await self.crash(error)  # and go on stopping: the consumer's thread would keep the process alive
        await super().on_stop()

    def _new_transport(self) -> _Transport:
        return _Transport(self.conf.broker_consumer, self)

    def _create_directories(self) -> None:
        """No tables, so nothing is kept in files."""


def create_app(
    group: str,
    bootstrap: str,
    ownership: Ownership,
    fetching: Fetching | None = None,
    session_timeout: float = 10.0,
    rebalance_timeout: float = 10.0,
    heartbeat_interval: float = 1.0,
) -> BatchApp:
    """A worker of the consumer group `group` on the Kafka at `bootstrap` ("host:port,host:port").

    The timeouts, in seconds: after `session_timeout` without a heartbeat a worker counts as dead;
    `rebalance_timeout` is what a worker has for its last checkpoint.
    """
    fetching = fetching or Fetching()
    addresses = [address.strip() for address in bootstrap.split(",")]
    app = BatchApp(
        group,
        broker=[f"kafka://{address}" for address in addresses],
        broker_client_id=group,
        broker_session_timeout=session_timeout,
        broker_rebalance_timeout=rebalance_timeout,
        broker_heartbeat_interval=heartbeat_interval,
        broker_request_timeout=max(session_timeout, rebalance_timeout) + 10.0,
        broker_commit_interval=3600.0,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=fetching.max_partition_bytes,
        agent_supervisor=CrashingSupervisor,
        stream_wait_empty=False,
        stream_buffer_maxsize=1 << 16,  # never reached: BATCHES_AHEAD is the bound
        topic_disable_leader=True,
        topic_allow_declare=False,
        table_standby_replicas=0,
        web_enabled=False,
        worker_redirect_stdouts=False,
        autodiscover=False,
    )
    app.ownership = ownership
    app.fetching = fetching
    app.addresses = addresses
    return app
