"""The DLQ topic as a log of letters and receipts."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from schemas.topics import Topic
from services.dlq.letter import Letter, read
from streams.runtime.reading import read_partition
from streams.settings import Kafka


@dataclass(frozen=True)
class Choice:
    """Which letters are meant: every field that is not None must fit; `since` in epoch ms, of the burial."""

    reason: str | None = None
    topic: str | None = None
    partition: int | None = None
    since: int | None = None
    offset: int | None = None

    def fits(self, letter: Letter) -> bool:
        """Say whether a letter is meant."""
        topic, partition = letter.source[:2] if letter.source else (None, None)
        return (
            self.reason in (None, letter.reason)
            and self.topic in (None, topic)
            and self.partition in (None, partition)
            and self.offset in (None, letter.offset)
            and (self.since is None or letter.time >= self.since)
        )


@dataclass(frozen=True)
class DeadLetterLog:
    """The DLQ topic on the cluster at `kafka`; each reading ends where the topic ended at its beginning."""

    kafka: Kafka
    topic: Topic

    async def letters(self, choice: Choice) -> AsyncGenerator[Letter, None]:
        """Yield the chosen letters in the order of their burial."""
        async for one in self._contents(choice.since):
            if isinstance(one, Letter) and choice.fits(one):
                yield one

    async def replayed(self, choice: Choice) -> set[int]:
        """Return the offsets of letters that were sent back; a letter's receipt is never before it."""
        return {offset async for one in self._contents(choice.since) if isinstance(one, list) for offset in one}

    async def _contents(self, since: int | None) -> AsyncIterator[Letter | list[int]]:
        async for records in read_partition(self.kafka, self.topic, since=since):
            for row in range(len(records)):
                yield read(records, row)
