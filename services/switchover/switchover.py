"""The conditions under which a deployment may be stopped without an event going unscored.

1. Every partition of the public scores has had a score of the new one: all its workers publish.
2. The old one has scored every event there is by now, the new one too: whatever the new one scored before it
   published has the old one's score, and nobody waits for a new one that lags.

What comes between 1 and the end of the old one is scored by both, under one event id.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from faust.types import TP

from schemas.topics import Topic
from streams.runtime.connection import connection
from streams.runtime.offsets import GroupOffsets
from streams.settings import Kafka
from streams.usecases import UseCase

POLL_SECONDS = 0.2


class NotYet(Exception):
    """The old deployment may not be stopped; the message says what it is still needed for."""


class _Score(msgspec.Struct):
    feature_set: str = ""


_decode = msgspec.json.Decoder(_Score).decode


class Switchover:
    """One switch-over from `old` to `new`; each condition is waited for `patience` seconds at most."""

    def __init__(
        self, kafka: Kafka, old: UseCase, new: UseCase, partitions: int, patience: float, say: Callable[[str], None]
    ) -> None:
        self._kafka, self._old, self._new = kafka, old, new
        self._partitions, self._patience, self._say = partitions, patience, say

    async def run(self) -> None:
        """Return once the old deployment may be stopped; raises NotYet, KafkaError."""
        await self._publishing()
        self._say(f"{self._new.full_name} publishes on every partition")
        for one in self._old, self._new:
            await self._caught_up(one)
            self._say(f"{one.full_name} has scored every event until now")
        self._say(f"{self._new.full_name} has taken over: stop the workers and the learner of {self._old.full_name}")

    async def _publishing(self) -> None:
        """Wait until a score of the new feature set has come on each partition of the public topic."""
        topics = self._new.topics(self._partitions)
        public, features = topics.published or topics.scores, self._new.features.fingerprint
        silent = {TopicPartition(public.name, number) for number in range(public.partitions)}
        consumer = AIOKafkaConsumer(**connection(self._kafka), enable_auto_commit=False)
        try:
            await consumer.start()
            consumer.assign(sorted(silent))
            await consumer.seek_to_end()
            for place in silent:
                await consumer.position(place)  # settles where the end is
            deadline = time.monotonic() + self._patience
            while silent:
                if time.monotonic() > deadline:
                    numbers = ", ".join(str(place.partition) for place in sorted(silent))
                    raise NotYet(
                        f"no score of feature set {features} has come on partition {numbers} of {public.name}: do all "
                        f"workers of {self._new.full_name} run with HEADRACE_PUBLISH=yes, and do events come?"
                    )
                for place, records in (await consumer.getmany(timeout_ms=int(POLL_SECONDS * 1000))).items():
                    if any(_feature_set(record.value) == features for record in records):
                        silent.discard(place)
        finally:
            await consumer.stop()

    async def _caught_up(self, usecase: UseCase) -> None:
        """Wait until a deployment's stages have done all that is in their topics, one stage after the other."""
        topics = usecase.topics(self._partitions)
        async with AsyncExitStack() as stack:
            offsets = GroupOffsets(self._kafka, usecase.group("stages"))
            stack.push_async_callback(offsets.stop)
            await offsets.start()
            for topic in (topics.events, *topics.hops):
                ends = await offsets.ends(topic.name, topic.partitions)
                await self._passed(offsets, usecase, topic, ends)

    async def _passed(self, offsets: GroupOffsets, usecase: UseCase, topic: Topic, ends: Mapping[TP, int]) -> None:
        deadline = time.monotonic() + self._patience
        while not await offsets.passed(ends):
            if time.monotonic() > deadline:
                raise NotYet(f"{usecase.full_name} has not caught up with {topic.name}: do its workers run?")
            await asyncio.sleep(POLL_SECONDS)


def _feature_set(value: bytes | None) -> str:
    try:
        return _decode(value or b"").feature_set
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
