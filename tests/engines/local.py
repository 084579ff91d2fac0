"""The servers as processes of this machine, without Docker."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.local import LocalServers
from infra.local.cassandra import Cassandra
from infra.local.kafka import Kafka
from infra.local.valkey import Valkey


class Local:
    """Servers of `infra.local`, one stack each."""

    name = "local"

    @contextmanager
    def kafka(self, folder: Path) -> Iterator[Kafka]:
        with LocalServers(folder, only=("kafka",)) as servers:
            yield servers.kafka

    @contextmanager
    def valkey(self, folder: Path, save: str = "") -> Iterator[Valkey]:
        with LocalServers(folder, only=("valkey",), save=save) as servers:
            yield servers.valkey

    @contextmanager
    def cassandra(self, folder: Path) -> Iterator[Cassandra]:
        with LocalServers(folder, only=("cassandra",)) as servers:
            yield servers.cassandra
