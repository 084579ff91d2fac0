"""Where the servers of the integration tests run: as local processes, or in containers. The tests do not see which.

`pytest --engine local` is the default; `--engine containers` needs Docker and is what `make test-containers` runs.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol


class Server(Protocol):
    """A running server that a test may kill: its address and its data stay the same from one start to the next."""

    @property
    def address(self) -> str:
        """Where clients reach it, `host:port`."""

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""

    def start(self) -> None:
        """Start it again; it is ready for clients after `wait_healthy`."""

    def wait_healthy(self) -> None:
        """Wait until it answers in its own protocol."""

    def suspend(self) -> None:
        """Stop its clock: connections stay, nothing answers."""

    def resume(self) -> None:
        """Let it go on."""


class ValkeyServer(Server, Protocol):
    """A Valkey, which clients know by its URL."""

    @property
    def url(self) -> str:
        """`redis://host:port/0`."""


class Engine(Protocol):
    """What starts servers; each is running inside the block, and gone with its data after it."""

    name: str

    def kafka(self, folder: Path) -> AbstractContextManager[Server]:
        """A Kafka broker."""

    def valkey(self, folder: Path, save: str = "") -> AbstractContextManager[ValkeyServer]:
        """A Valkey; `save` is its snapshot rule, such as "60 1", and empty for none."""

    def cassandra(self, folder: Path) -> AbstractContextManager[Server]:
        """A Cassandra node."""
