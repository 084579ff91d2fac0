"""Real Kafka, Valkey and Cassandra as local processes, from packages: no Docker, no Java to install.

>>> with LocalServers(Path(".headrace")) as servers:  # doctest: +SKIP
...     servers.kafka.address, servers.valkey.url, servers.cassandra.address
"""

from .errors import LocalServerError
from .server import Server
from .stack import NAMES, LocalServers

__all__ = ["NAMES", "LocalServerError", "LocalServers", "Server"]
