"""The topic of lists as this tool reads and writes it."""

import logging
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from schemas.codec import encode
from schemas.events import Listing
from schemas.topics import Topic
from streams.agents.lists import UnfitEntry, entry
from streams.decisions.lists import key_of
from streams.runtime.delivery import deliver
from streams.runtime.newest import newest_first
from streams.runtime.topics import answering, create_topics
from streams.settings import Kafka

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ListLog:
    """Who is listed in `topic` on the cluster at `kafka`. Raises KafkaUnavailable, TopicMismatch, UndeliveredError."""

    kafka: Kafka
    topic: Topic

    def create(self) -> None:
        """Create the topic where it is missing; blocks. To be called before all else."""
        create_topics(self.kafka, [self.topic])

    async def entries(self) -> list[Listing]:
        """Return who is listed, by list, entity and id."""
        newest: dict[bytes, Listing | None] = {}
        with answering(self.kafka):
            async with aclosing(newest_first(self.kafka, self.topic.name)) as records:
                async for record in records:
                    if record.key in newest:
                        continue
                    try:
                        newest[record.key] = entry(record).listing
                    except UnfitEntry as error:
                        newest[record.key] = None
                        log.warning("%s/0 at offset %d: passed over: %s", self.topic.name, record.offset, error)
        return sorted(filter(None, newest.values()), key=lambda one: (one.list, one.entity, one.id))

    async def add(
        self, list_: Literal["block", "allow"], entity: str, ids: Sequence[str], reason: str, now: int
    ) -> None:
        """Put entities on a list; returns once Kafka has it. `now` in epoch ms."""
        await self._send({key_of(entity, one): encode(Listing(entity, one, list_, reason, now)) for one in ids})

    async def remove(self, entity: str, ids: Sequence[str]) -> None:
        """Take entities off their list; returns once Kafka has it."""
        await self._send({key_of(entity, one): None for one in ids})

    async def _send(self, records: dict[bytes, bytes | None]) -> None:
        await deliver(self.kafka, "lists", self.topic.name, records)
