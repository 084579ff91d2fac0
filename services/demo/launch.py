"""Bringing the demo up: servers together, each service as soon as what it needs is there."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from infra.local import LocalServers, Server
from infra.processes import Processes
from schemas.topics import Topics
from streams.runtime.topics import create_topics

NEEDS = {
    "worker": {"kafka", "valkey"},
    "learner": {"kafka"},
    "history": {"kafka", "cassandra"},
    "matured": {"kafka"},
}
"""The services of the pipeline and the servers they cannot start without."""

READY_SECONDS = 90.0


@dataclass
class Launch:
    """Servers and services of one use case on their way up; `say` is told what has come."""

    usecase: str
    topics: Topics
    servers: LocalServers
    processes: Processes
    say: Callable[[str], None]
    _up: set[str] = field(default_factory=set, init=False)
    _started: set[str] = field(default_factory=set, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def run(self) -> None:
        """Return once all servers are healthy and all services ready; raise the first error otherwise."""
        self.servers.start(self._arrived)
        self.processes.wait_ready(READY_SECONDS)

    def _arrived(self, server: Server, seconds: float, _was_running: bool) -> None:
        self.say(f"{server.name} {server.address} ready in {seconds:.1f} s")
        if server.name == "kafka":
            create_topics(server.address, self.topics)
        with self._lock:  # servers come in threads of their own
            self._up.add(server.name)
            for name, needs in NEEDS.items():
                if needs <= self._up and name not in self._started:
                    self._started.add(name)
                    self.processes.start(name, f"services.{name}", self.usecase)
