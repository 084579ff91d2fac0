"""The local servers, for every test that asks: started once a session, each when the first test needs it.

A test that uses one of these fixtures is an integration test and is marked as one. The servers are shared, so tests
use topics, keys and use cases of their own.
"""

from collections.abc import Iterator

import pytest

from infra.local import LocalServers
from infra.local.kafka import Kafka

SERVERS = {"kafka_server", "mortal_kafka", "valkey_server", "cassandra_server"}


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running Kafka, `host:port`."""
    with LocalServers(tmp_path_factory.mktemp("kafka"), only=("kafka",)) as servers:
        yield servers.kafka.address


@pytest.fixture(scope="session")
def mortal_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """Another Kafka, for the tests that kill it; each leaves it as it found it, running."""
    with LocalServers(tmp_path_factory.mktemp("mortal-kafka"), only=("kafka",)) as servers:
        yield servers.kafka


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running Valkey, `redis://host:port/0`."""
    with LocalServers(tmp_path_factory.mktemp("valkey"), only=("valkey",)) as servers:
        yield servers.valkey.url


@pytest.fixture(scope="session")
def cassandra_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running Cassandra, `host:port`."""
    with LocalServers(tmp_path_factory.mktemp("cassandra"), only=("cassandra",)) as servers:
        yield servers.cassandra.address


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses a server, so that `-m "not integration"` starts none."""
    for item in items:
        if SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.integration)
