"""What every command works with: a use case's topics and registry, and the key that its models are signed with."""

import asyncio
import getpass
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from services.models.choice import Choice
from services.models.log import ModelLog
from streams.runtime.topics import check_topics
from streams.settings import Settings
from streams.stores.history import StoreUnreachable
from streams.stores.registry import ModelRegistry
from streams.stores.registry_cassandra import CassandraRegistry
from streams.usecases import UseCase

PATIENCE = 60.0  # seconds for what is asked of the registry

T = TypeVar("T")


class Access:
    """The models of one deployment of a use case."""

    def __init__(self, usecase: UseCase, settings: Settings) -> None:
        self.usecase = usecase.deployed(settings.deployment, settings.publish)
        self.settings = settings
        self.topics = self.usecase.topics(settings.partitions)
        self.log = ModelLog(settings.kafka, self.usecase, self.topics)

    def check(self) -> None:
        """Raise KafkaUnavailable or TopicMismatch unless the topics are there; blocks."""
        needed = (self.topics.models, self.topics.aliases, self.topics.examples)
        check_topics(self.settings.kafka, needed)

    @asynccontextmanager
    async def registry(self) -> AsyncIterator[ModelRegistry]:
        """The registry inside the block, for a minute at most; raises StoreUnreachable."""
        address = self.settings.cassandra
        registry = CassandraRegistry(address, self.settings.keyspace, self.usecase.full_name, _quiet)
        await registry.start()
        try:
            async with asyncio.timeout(PATIENCE):
                yield registry
        except TimeoutError:
            raise StoreUnreachable(f"Cassandra at {address} does not answer") from None
        finally:
            await registry.close()

    def choice(self, registry: ModelRegistry) -> Choice:
        """Return the snapshots that may be used; raises SettingsError without a key."""
        return Choice(registry, self.usecase, self.settings.signing_key())


async def first(items: AsyncGenerator[T, None], count: int) -> list[T]:
    """Return the first items there are, `count` at most."""
    found: list[T] = []
    try:
        async for item in items:
            found.append(item)
            if len(found) == count:
                break
    finally:
        await items.aclose()
    return found


def now() -> int:
    """Return the time in epoch ms."""
    return int(time.time() * 1000)


def user() -> str:
    """Return who runs this, as far as the system knows."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a passwd entry
        return "somebody"


def _quiet(_: Exception) -> None:
    pass
