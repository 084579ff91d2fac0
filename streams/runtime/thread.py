"""The thread around aiokafka that Faust's consumer has: fetches as bytes, in the generation that is open."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import IllegalStateError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streams.features.table import StateRefused
from streams.runtime.fetching import Fetched, RawFetcher

if TYPE_CHECKING:
    from streams.runtime.consumer import BatchConsumer

T = TypeVar("T")
log = logging.getLogger(__name__)


class Listener(driver.ConsumerRebalanceListener):
    _thread: "ConsumerThread"

    def on_partitions_revoked(self, revoked: Iterable[Any]) -> Awaitable[None]:
        self._thread.close_generation()
        answer: Awaitable[None] = super().on_partitions_revoked(revoked)
        return answer


class ConsumerThread(driver.AIOKafkaConsumerThread):
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
        offsets = {tp: within_log(tp, offset, begins[tp], ends[tp]) for tp, offset in positions.items()}
        for tp, offset in offsets.items():
            consumer.seek(TopicPartition(*tp), offset)
        self.open = True
        return offsets

    def fetched_to(self, tp: TP) -> int | None:
        """Return the offset to be fetched next, None while the partition changes hands: a look, from any thread."""
        subscription = self._ensure_consumer()._subscription.subscription
        assignment = subscription and subscription.assignment
        state = assignment and assignment.state_value(TopicPartition(*tp))
        return state._position if state else None

    async def commit_positions(self, positions: Mapping[TP, int]) -> None:
        consumer = self._ensure_consumer()
        assignment = consumer.assignment()
        offsets = {tp: OffsetAndMetadata(positions[TP(*tp)], "") for tp in assignment if TP(*tp) in positions}
        if offsets:
            await consumer.commit(offsets)


def within_log(tp: TP, offset: int, begin: int, end: int) -> int:
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
