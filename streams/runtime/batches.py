"""Faust fed in batches: an agent receives what a fetch brought, one `Batch` a partition (design D1).

It stays a Faust app with agents, timers and a consumer group; what is replaced is how records come in and
who keeps the offsets, both in `streams.runtime.consumer`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import faust
from faust.app.base import BootStrategy
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.supervisors import CrashingSupervisor

from streams.runtime.connection import credentials
from streams.runtime.consumer import EARLIEST, Batch, BatchConsumer, Fetching, Handler, Ownership
from streams.settings import Kafka

__all__ = ["EARLIEST", "Batch", "BatchApp", "Fetching", "Handler", "Ownership", "create_app"]


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
    kafka: Kafka

    @property
    def source_topics(self) -> list[str]:
        """The topics that the registered agents read, in their order."""
        return [topic for agent in self.agents.values() for topic in agent.get_topic_names()]

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

    async def commit_positions(self, positions: Mapping[TP, int]) -> bool:
        """Commit offsets to Kafka, and return whether that worked; a failure is logged."""
        return await self.batches.commit_positions(positions)

    def pause(self, partitions: Iterable[TP]) -> None:
        """Take no further batches of the partitions; what an agent already has stays with it."""
        self.batches.hold(partitions)

    def resume(self, partitions: Iterable[TP]) -> None:
        """Take batches of the partitions again."""
        self.batches.release(partitions)

    def reached(self) -> dict[TP, int]:
        """The next offset of each partition in this worker's hands: everything before it is done."""
        return self.batches.reached()

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
    kafka: Kafka,
    ownership: Ownership,
    fetching: Fetching | None = None,
    session_timeout: float = 10.0,
    rebalance_timeout: float = 10.0,
    heartbeat_interval: float = 1.0,
    instance: str = "",
) -> BatchApp:
    """A worker of the consumer group `group` on the Kafka at `kafka`.

    The timeouts, in seconds: after `session_timeout` without a heartbeat a worker counts as dead;
    `rebalance_timeout` is what a worker has for its last checkpoint. A worker with an `instance` is a static member.
    """
    fetching = fetching or Fetching()
    app = BatchApp(
        group,
        broker=[f"kafka://{address}" for address in str(kafka).split(",")],
        broker_credentials=credentials(kafka),
        broker_client_id=group,
        consumer_group_instance_id=instance or None,
        broker_session_timeout=session_timeout,
        broker_rebalance_timeout=rebalance_timeout,
        broker_heartbeat_interval=heartbeat_interval,
        broker_request_timeout=max(session_timeout, rebalance_timeout) + 10.0,
        broker_commit_interval=3600.0,
        consumer_auto_offset_reset="none",  # `open_at` seeks; a log that loses a position later ends the worker
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
    app.kafka = kafka
    return app
