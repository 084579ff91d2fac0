"""What Faust has a thread for, around aiokafka, in the main loop: fetches as bytes, in the generation that is open.

Two threads would take turns at one processor, as both run Python: each hand-over of a fetch or a seek then waits for
the other's turn to end, up to 5 ms.
"""

import asyncio
import logging
from collections.abc import Awaitable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streams.features.table import StateRefused
from streams.runtime.fetching import Fetched, RawFetcher
from streams.runtime.topics import unwelcome

if TYPE_CHECKING:
    from streams.runtime.consumer import BatchConsumer

log = logging.getLogger(__name__)

LEAVE_SECONDS = 5.0


class Listener(driver.ConsumerRebalanceListener):
    _thread: "ConsumerThread"

    def on_partitions_revoked(self, revoked: Iterable[Any]) -> Awaitable[None]:
        self._thread.close_generation()
        answer: Awaitable[None] = super().on_partitions_revoked(revoked)
        return answer


class _NoThread:
    """Stands in for mode's WorkerThread, and serves in the main loop."""

    def __init__(self, service: "ConsumerThread") -> None:
        self._service = service

    def start(self) -> None:
        self._serving = asyncio.ensure_future(self._serve())

    async def _serve(self) -> None:
        try:
            with suppress(Exception):  # the worker has been told of it
                await self._service._serve()
        finally:
            self._service.set_shutdown()  # who stops it waits for that, also where it fails while it stops

    def stop(self) -> None:
        """Called once the service has shut down."""


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's service around aiokafka; its thread is none. Each method is atomic up to its next await."""

    Worker = _NoThread  # type: ignore[assignment]

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

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Call the consumer, past Faust's queue between threads, which a crash stops: the group would wait for it."""
        await self.consumer.on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        await self.consumer.on_partitions_assigned(assigned, generation_id)

    def close(self) -> None:
        """Close nothing yet: Faust would cut the connections while the group is being left."""

    async def on_thread_stop(self) -> None:
        """Leave the group, which may wait for a rebalance of others; what counts, the last checkpoint, is written."""
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await super().on_thread_stop()
        except TimeoutError:
            log.warning("the group was not left within %.0f s: it misses us when the session ends", LEAVE_SECONDS)
            if self._consumer is not None:
                await self._consumer._fetcher.close()
                await self._consumer._client.close()

    async def _gather_remaining_tasks(self) -> None:
        """End none of the loop's other tasks: they are not the service's."""

    def on_crash(self, msg: str, *fmt: Any, **kwargs: Any) -> None:
        """Leave the report to the worker, which has one line for it."""

    def close_generation(self) -> None:
        self.generation += 1
        self.open = False

    def check(self) -> None:
        """Raise what the group refuses this member for, which aiokafka keeps until it is asked."""
        coordinator = self._consumer and self._consumer._coordinator  # None until a broker has been found
        try:
            if coordinator:
                coordinator.check_errors()
        except KafkaError as error:
            raise unwelcome(self.consumer.app.kafka, error) from None

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
