"""The model topic and the alias topic as this tool reads and writes them."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from schemas.codec import encode
from schemas.events import AliasChange, ModelAnnouncement
from schemas.topics import Topic, Topics
from services.models.choice import Refused
from streams.models.snapshot import SnapshotRefused, verify_announcement
from streams.runtime.delivery import deliver
from streams.runtime.newest import newest_first
from streams.runtime.topics import answering
from streams.settings import Kafka
from streams.usecases import UseCase

MOST_TRIED = 100  # records that are looked at for a sound one
CLIENT = "models"

T = TypeVar("T")

_decode_announcement = msgspec.json.Decoder(ModelAnnouncement).decode
_decode_change = msgspec.json.Decoder(AliasChange).decode


@dataclass(frozen=True)
class ModelLog:
    """What is announced of a use case's models on the cluster at `kafka`. Raises KafkaUnavailable."""

    kafka: Kafka
    usecase: UseCase
    topics: Topics

    async def aliases(self) -> dict[str, AliasChange]:
        """Return the newest change of each alias that was ever changed."""
        newest: dict[str, AliasChange] = {}
        async with aclosing(self._newest(self.topics.aliases, _decode_change)) as changes:
            async for _, change in changes:
                newest.setdefault(change.alias, change)
        return newest

    async def newest(self, key: bytes) -> tuple[int, ModelAnnouncement]:
        """Return the newest announcement that is sound and of our features, and its offset; raises Refused."""
        error: Exception | None = None
        tried = 0
        async with aclosing(self._newest(self.topics.models, _decode_announcement)) as announcements:
            async for offset, announcement in announcements:
                try:
                    verify_announcement(announcement, key, self.usecase.features.fingerprint)
                    return offset, announcement
                except SnapshotRefused as refused:
                    error = error or refused
                tried += 1
                if tried == MOST_TRIED:
                    break
        why = f"the newest of {tried}: {error}" if error else "it is empty"
        raise Refused(f"{self.topics.models.name} has no model that may be used ({why})")

    async def announce(self, announcement: ModelAnnouncement) -> None:
        """Announce models; returns once Kafka has them."""
        await deliver(self.kafka, CLIENT, self.topics.models.name, {self.usecase.name.encode(): encode(announcement)})

    async def change(self, change: AliasChange) -> None:
        """Change an alias; returns once Kafka has it."""
        await deliver(self.kafka, CLIENT, self.topics.aliases.name, {change.alias.encode(): encode(change)})

    async def _newest(self, topic: Topic, decode: Callable[[bytes], T]) -> AsyncGenerator[tuple[int, T], None]:
        """Yield what can be decoded of a topic, the newest first."""
        with answering(self.kafka):
            async with aclosing(newest_first(self.kafka, topic.name)) as records:
                async for record in records:
                    try:
                        decoded = decode(record.value)
                    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                        continue
                    yield record.offset, decoded
