"""Faust's consumer without messages of one record, acks and commits: who owns what, and from which offset on.

The order of effects when partitions change hands (design D2):

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
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import faust
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from mode import Service

from streams.runtime.records import Records
from streams.runtime.retrying import until_answered
from streams.runtime.thread import ConsumerThread, Listener
from streams.runtime.topics import KafkaUnavailable

if TYPE_CHECKING:
    from streams.runtime.batches import BatchApp

FAUST = "0.15.3"
if faust.__version__ != FAUST:
    raise ImportError(
        f"streams.runtime replaces parts of faust-streaming {FAUST}, but {faust.__version__} is installed; "
        "check streams/runtime/consumer.py against it before changing the pin"
    )

T = TypeVar("T")
log = logging.getLogger(__name__)

EARLIEST = -1
BATCHES_AHEAD = 2  # per partition: one being worked on, one that waits for it
IDLE_POLL = 1.0  # seconds; data that arrives ends a poll at once
HELD_POLL = 0.01  # seconds, while some partition is paused or has its batches ahead
MEMBERSHIP_POLL = 1.0  # seconds; aiokafka tells nobody that the group has refused us until it is asked
COMMIT_SECONDS = 2.0  # no worker goes on from it
TELL_SECONDS = 10.0  # between two lines about offsets that are not committed


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
    linger: float = 0.0015


class BatchConsumer(driver.Consumer):
    """Faust's consumer without acks, commits and messages of one record."""

    RebalanceListener = Listener
    app: "BatchApp"
    _thread: ConsumerThread

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
        self._told_at = float("-inf")

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, thread_loop=self.loop, beacon=self.beacon)

    @Service.task
    async def _watch_membership(self) -> None:
        """End the worker that its group refuses: it would be no member for ever, and look alive."""
        while not self.should_stop:
            try:
                self._thread.check()
            except KafkaUnavailable as error:
                await self.app.crash(error)
                return
            await self.sleep(MEMBERSHIP_POLL)

    # -- delivery

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            await self._drain(fetcher)
        except asyncio.CancelledError:
            if not self.app.should_stop:  # else Faust would call it a crash if partitions are changing hands
                raise

    async def _drain(self, fetcher: Any) -> None:
        # Agents in the order of their registration: what one makes is on its way while the next one works.
        topics = self.app.source_topics
        while not (self.should_stop or fetcher.should_stop):
            generation, assigned = self.generation, self._done.keys()
            if generation < 0 or not assigned:
                await self.sleep(HELD_POLL)
                continue
            ready = {tp for tp in assigned if self._ahead[tp] < BATCHES_AHEAD} - self._held
            timeout = IDLE_POLL if len(ready) == len(assigned) else HELD_POLL
            fetched = await self._thread.poll(generation, ready, timeout)
            self._ahead.update(fetched.keys())  # of all at once: the positions have moved past them
            by_topic: dict[str, list[Batch]] = {topic: [] for topic in topics}
            for tp, (records, next_offset) in fetched.items():
                by_topic[tp.topic].append(Batch(tp.topic, tp.partition, records, next_offset, generation))
            for batches in filter(None, by_topic.values()):
                await self._deliver(batches)

    async def _deliver(self, batches: Sequence[Batch]) -> None:
        if batches[0].generation == self.generation:
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
        offsets = await until_answered(
            lambda: self._thread.open_at(generation, positions),
            lambda error: log.debug("offsets are not known yet: %r", error),
        )
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

    async def commit_positions(self, positions: Mapping[TP, int]) -> bool:
        if not positions or self.app.crashed:  # before its start, or after a crash, there is no thread to ask
            return False
        try:
            async with asyncio.timeout(COMMIT_SECONDS):
                await self._thread.commit_positions(positions)
                return True
        except (CommitFailedError, IllegalStateError) as error:
            log.debug("offsets were not committed, as partitions change: %r", error)
        except (KafkaError, TimeoutError) as error:
            self._tell_uncommitted(error)
        return False

    def _tell_uncommitted(self, error: Exception) -> None:
        if time.monotonic() - self._told_at > TELL_SECONDS:
            self._told_at = time.monotonic()
            log.warning("offsets were not committed: %r", error)

    def hold(self, partitions: Iterable[TP]) -> None:
        self._held |= set(partitions)

    def release(self, partitions: Iterable[TP]) -> None:
        self._held -= set(partitions)

    def reached(self) -> dict[TP, int]:
        """Return how far each partition is done, past what holds no record, such as the end of a transaction."""
        fetched = {tp: self._thread.fetched_to(tp) for tp in self._done}
        return {tp: done if self._ahead[tp] else max(done, fetched[tp] or 0) for tp, done in self._done.items()}

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
