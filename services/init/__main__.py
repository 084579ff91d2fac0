"""`python -m services.init fraud`: create the topics and tables that are missing, then end."""

import argparse
import asyncio
import os
import sys

from streams.console import ends_quietly
from streams.runtime.topics import KafkaUnavailable, TopicMismatch, create_topics
from streams.settings import Settings, SettingsError
from streams.stores.cassandra import CassandraHistory
from streams.stores.history import StoreUnreachable
from streams.usecases import USECASES, UseCase


@ends_quietly
def main(arguments: list[str] | None = None) -> int:
    """Create what is missing: 0 once everything is there, 1 where a server refuses, 2 where a setting is wrong."""
    usecase = USECASES[_parser().parse_args(arguments).usecase]
    try:
        settings = Settings.read(os.environ)
        _create(usecase.deployed(settings.deployment, settings.publish), settings)
    except SettingsError as error:
        print(f"init: {error}", file=sys.stderr)
        return 2
    except (KafkaUnavailable, TopicMismatch, StoreUnreachable) as error:
        print(f"init: {error}", file=sys.stderr)
        return 1
    return 0


def _create(usecase: UseCase, settings: Settings) -> None:
    topics = usecase.topics(settings.partitions)
    create_topics(settings.kafka, topics, settings.replication)
    print(f"topics: {', '.join(topic.name for topic in topics)}")
    asyncio.run(_tables(usecase, settings))
    print(f"tables: in the keyspace {settings.keyspace}")


async def _tables(usecase: UseCase, settings: Settings) -> None:
    store = CassandraHistory(settings.cassandra, settings.keyspace, usecase.full_name)
    await store.start()
    await store.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.init",
        description="Create the topics and tables of a use case where they are missing, then end. The services do so "
        "themselves when they start; where many start at once, or may not create anything, this goes first.",
    )
    parser.add_argument("usecase", choices=sorted(USECASES))
    return parser


if __name__ == "__main__":
    sys.exit(main())
