"""The monitor: asks the stores and the partitions how they are, beside the work, and tells the process's health.

It asks by connections of its own: a consumer whose fetching has died would never see that there is more to fetch.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from faust.types import TP

from schemas.topics import Topic
from streams.runtime.batches import BatchApp
from streams.runtime.health import Health, Standing
from streams.runtime.offsets import GroupOffsets
from streams.settings import Kafka

T = TypeVar("T")

BEAT_SECONDS = 0.25
ASK_SECONDS = 1.0  # between two questions
PROMPT_SECONDS = 3.0
"""A store that has not answered by then is away: far more than any answer takes, also on a busy machine."""

Ping = Callable[[], Awaitable[None]]
Standings = Callable[[], Mapping[TP, Standing]]


class Monitor:
    """Watches the partitions of `topics` as `standings` has them, Kafka, and the stores behind `pings`.

    A ping raises where its store does not answer.
    """

    def __init__(
        self, health: Health, kafka: Kafka, topics: Iterable[Topic], standings: Standings, pings: Mapping[str, Ping]
    ) -> None:
        self._health, self._topics, self._standings, self._pings = health, list(topics), standings, pings
        self._offsets = GroupOffsets(kafka, None, partial(health.retried, "kafka"))

    @asynccontextmanager
    async def running(self, app: BatchApp) -> AsyncIterator[None]:
        """Watch inside the block; raises KafkaError where no broker answers at its start."""
        await self._offsets.start()
        works = [self._beat(), self._watch_partitions(), *(self._watch(*store) for store in self._pings.items())]
        tasks = [asyncio.create_task(_or_crash(app, work)) for work in works]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await self._offsets.stop()

    async def begins(self) -> dict[TP, int]:
        """Return the first offset that Kafka still has of each partition."""
        return {tp: log.begin for tp, log in (await self._offsets.logs(self._topics)).items()}

    async def _beat(self) -> None:
        while True:
            self._health.beat()
            await asyncio.sleep(BEAT_SECONDS)

    async def _watch_partitions(self) -> None:
        while True:
            logs = await self._asked("kafka", self._offsets.logs(self._topics))
            if logs is not None:
                self._health.saw(self._standings(), logs)
            await asyncio.sleep(ASK_SECONDS)

    async def _watch(self, store: str, ping: Ping) -> None:
        while True:
            await self._asked(store, ping())
            await asyncio.sleep(ASK_SECONDS)

    async def _asked(self, store: str, question: Awaitable[T]) -> T | None:
        """Return a store's answer, None where there is none, and note whether it came promptly."""
        asking = asyncio.ensure_future(question)
        try:
            await asyncio.wait([asking], timeout=PROMPT_SECONDS)
            if not asking.done():
                self._health.answered(store, promptly=False)
                await asyncio.wait([asking])
        finally:
            asking.cancel()  # if the monitor ends
        error = asking.exception()
        self._health.answered(store, promptly=error is None)
        if error is None:
            return asking.result()
        self._health.tell(store, error)
        return None


async def _or_crash(app: BatchApp, work: Coroutine[None, None, None]) -> None:
    """Do `work`, and end the app if it fails: a watch that has ended would find nothing wrong for ever."""
    try:
        await work
    except Exception as error:
        await app.crash(error)
