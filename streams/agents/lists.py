"""Block and allow lists: follow their topic and put each change to use between two batches."""

import asyncio
import logging
from contextlib import aclosing
from typing import NamedTuple

import msgspec

from schemas.events import Listing
from schemas.topics import Topic
from streams.decisions.lists import EntityLists, key_of
from streams.metrics import Metrics
from streams.runtime.following import Follower
from streams.runtime.newest import Logged, newest_first
from streams.settings import Kafka

log = logging.getLogger(__name__)

_decode = msgspec.json.Decoder(Listing).decode


class Entry(NamedTuple):
    """What a record says: an entity, by its name and id, is on a list, or on none."""

    entity: str
    id: str
    listing: Listing | None


class UnfitEntry(ValueError):
    """A record that is no entry; the message says why, and names no entity."""


def entry(record: Logged) -> Entry:
    """Return what a record of the topic of lists says; raise UnfitEntry."""
    try:
        entity, colon, id_ = record.key.decode().partition(":")
        listing = _decode(record.value) if record.value else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnfitEntry(f"no entry: {error}") from None
    if not colon or (listing and key_of(listing.entity, listing.id) != record.key):
        raise UnfitEntry("its key is not that of its entity")
    return Entry(entity, id_, listing)


class ListFeed:
    """The lists as they stand in a topic, kept up to date in `lists`.

    An entry for an entity that the use case does not have is refused by its offset.
    """

    def __init__(self, kafka: Kafka, topic: Topic, metrics: Metrics, lists: EntityLists) -> None:
        self._kafka, self._topic = kafka, topic.name
        self._metrics, self._lists = metrics, lists
        self._follower = Follower(kafka, [topic.name], self._take)

    async def start(self) -> None:
        """Put what is listed to use and begin to follow the topic."""
        await self._follower.start()
        seen = set[bytes]()
        async with aclosing(newest_first(self._kafka, self._topic)) as records:
            async for record in records:
                if record.key not in seen:  # of a key the newest counts
                    seen.add(record.key)
                    await self._take(self._topic, record)
        self._follower.follow()

    async def stop(self) -> None:
        """Follow no longer."""
        await self._follower.stop()

    async def _take(self, topic: str, record: Logged) -> None:
        try:
            entity, id_, listing = entry(record)
            self._lists.put(entity, id_, listing.list if listing else None)
        except UnfitEntry as error:
            self._refuse(topic, record, str(error))
        except KeyError:
            self._refuse(topic, record, "of an entity that the use case does not have")
        self._metrics.listed.set(len(self._lists))
        await asyncio.sleep(0)  # thousands may come at once, and scoring goes on meanwhile

    def _refuse(self, topic: str, record: Logged, why: str) -> None:
        log.error("%s/0 at offset %d: refused, it changes nothing: %s", topic, record.offset, why)
        self._metrics.listings_refused.inc()
