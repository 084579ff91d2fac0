"""The three servers together, on one data folder."""

import base64
import fcntl
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import IO

from .cassandra import Cassandra
from .errors import LocalServerError
from .jars import fetch
from .kafka import Kafka
from .lock import ROOTS
from .ports import is_free
from .running import Running
from .server import Server
from .state import forget, recall, remember
from .valkey import Valkey

NAMES = ("kafka", "valkey", "cassandra")

OnReady = Callable[[Server, float, bool], None]


class LocalServers(Running):
    """Real Kafka, Valkey and Cassandra on loopback ports, with their data and logs below `folder`.

    `ports` asks for ports by server name, free ones otherwise; `save` is Valkey's snapshot rule. As a context
    manager it starts the servers together and they end with it, even if this process is killed (on Linux). With
    `detached` they outlive this process, and `servers.json` in the folder says which they are. `lasting` (implied by
    it) is for servers that run for minutes: they start a third slower and then need less processor.
    """

    def __init__(
        self,
        folder: Path,
        only: Iterable[str] = NAMES,
        progress: bool = False,
        *,
        ports: Mapping[str, int] | None = None,
        save: str = "",
        detached: bool = False,
        lasting: bool = False,
    ) -> None:
        self.folder = Path(folder).absolute()
        self.only = tuple(only)
        unknown = set(self.only) - set(NAMES)
        if unknown or not self.only:
            raise LocalServerError(f"unknown server {', '.join(unknown) or 'name'}: choose from {', '.join(NAMES)}")
        self._progress = progress
        self._detached = detached
        self._ports = dict(ports or {})
        self._lock: IO[str] | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        identity = stack_identity(self.folder)
        self.kafka = Kafka(self.folder, identity, self._ports.get("kafka"), detached)
        self.valkey = Valkey(self.folder, identity, self._ports.get("valkey"), detached, save)
        self.cassandra = Cassandra(self.folder, identity, self._ports.get("cassandra"), detached)
        for server in (self.kafka, self.cassandra):
            server.lasting = detached or lasting

    @property
    def servers(self) -> list[Server]:
        """The chosen servers."""
        by_name: dict[str, Server] = {server.name: server for server in (self.kafka, self.valkey, self.cassandra)}
        return [by_name[name] for name in self.only]

    def environment(self) -> dict[str, str]:
        """The chosen servers' addresses, as the environment variables that the services read."""
        variables = {
            "kafka": ("HEADRACE_KAFKA", self.kafka.address),
            "valkey": ("HEADRACE_REDIS", self.valkey.url),
            "cassandra": ("HEADRACE_CASSANDRA", self.cassandra.address),
        }
        return dict(variables[name] for name in self.only)

    def start(self, on_ready: OnReady = lambda *_: None) -> None:
        """Start the chosen servers together and wait until all are healthy; if one fails, none of them stays.

        `on_ready(server, seconds, was_running)` is called for each as it becomes healthy.
        """
        self._hold_folder()
        try:
            self._adopt()
            fetch(tuple(name for name in self.only if name in ROOTS), self._progress)
            self._start_together(on_ready)
        finally:
            if self._detached:
                self._release_folder()

    def stop(self) -> None:
        """Stop the chosen servers together; their data stays."""
        _together(Server.stop, self.servers)
        if self._detached:
            forget(self.folder, self.only)
        self._release_folder()

    def _start_together(self, on_ready: OnReady) -> None:
        ours = [server for server in self.servers if not server.alive]
        given_up = threading.Event()
        try:
            with ThreadPoolExecutor(len(NAMES)) as pool:
                waits = [pool.submit(_bring_up, server, on_ready, given_up) for server in self.servers]
                try:
                    for wait in as_completed(waits):
                        wait.result()
                except BaseException:
                    given_up.set()
                    _together(Server.kill, ours)  # which ends the other waits
                    raise
            if self._detached:
                remember(self.folder, self.servers)
        except BaseException:
            _together(Server.stop, ours)
            self._release_folder()
            raise

    def _adopt(self) -> None:
        """Take over what already runs on this folder, which only a detached stack may share."""
        running = recall(self.folder)
        for server in self.servers:
            port, process = running.get(server.name, (0, None))
            if process is None:
                continue
            if not process.alive:  # it crashed, and its clients know the port
                server.port = self._ports.get(server.name, port if is_free(port) else server.port)
                continue
            if not self._detached:
                raise LocalServerError(f"{server.name}: already running on {self.folder} (pid {process.pid})")
            if self._ports.get(server.name, port) != port:
                raise LocalServerError(f"{server.name}: already running on port {port}; stop it first")
            server.port, server.process_id = port, process

    def _hold_folder(self) -> None:
        self._lock = (self.folder / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._release_folder()
            raise LocalServerError(f"{self.folder} is in use by another process's servers") from error

    def _release_folder(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def stack_identity(folder: Path) -> str:
    """The name that the servers of this folder bear: a Kafka cluster id, made on first use."""
    path = folder / "identity"
    if not path.exists():
        identity = "-"
        while identity.startswith("-"):  # would look like an option
            identity = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        path.write_text(identity, encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()


def _bring_up(server: Server, on_ready: OnReady, given_up: threading.Event) -> None:
    was_running, begin = server.alive, time.monotonic()
    server.start()
    if given_up.is_set() and not was_running:  # while it was being prepared
        server.kill()
    server.wait_healthy()
    on_ready(server, time.monotonic() - begin, was_running)


def _together(action: Callable[[Server], None], servers: list[Server]) -> None:
    with ThreadPoolExecutor(len(NAMES)) as pool:
        list(pool.map(action, servers))
