"""Kafka and Valkey as clusters on loopback: brokers that are the controllers' quorum as well, masters and replicas.

Each member has a folder, a port and an identity of its own as a single server has, and is killed and started
like one. A broker that comes back catches up with the others. A Valkey keeps on disk who is in the cluster and nothing
else: it comes back empty, with the slots it had, or as the replica of its own replica if that has taken over.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import redis

from .cassandra import Cassandra
from .errors import LocalServerError
from .jars import fetch
from .kafka import Kafka, render_config
from .ports import HOST, free_port
from .running import Running
from .server import POLL, Server
from .stack import stack_identity
from .valkey import Valkey

SLOTS = 16384
NODE_TIMEOUT_MS = 2000  # for so long a member is silent before the others hold it to be dead
FORMED_SECONDS = 60.0

S = TypeVar("S", bound=Server)


class Broker(Kafka):
    """One of several brokers; `voters` are the ports of their controllers by node id."""

    def __init__(self, root: Path, identity: str, node_id: int, voters: dict[int, int]) -> None:
        super().__init__(root / f"broker-{node_id}", identity)
        self.node_id, self.voters = node_id, voters

    def properties(self, data: Path) -> str:
        """The text of server.properties: everything is kept by all brokers, and a majority must be there to write."""
        count = len(self.voters)
        copies = ("default.replication.factor", "offsets.topic.replication.factor")
        return render_config(
            self.port,
            self.voters[self.node_id],
            data,
            {
                "node.id": self.node_id,
                "controller.quorum.voters": ",".join(f"{one}@{HOST}:{port}" for one, port in self.voters.items()),
                **dict.fromkeys(copies, count),
                "min.insync.replicas": count // 2 + 1,
            },
        )


class Member(Valkey):
    """One of several Valkeys."""

    def __init__(self, root: Path, identity: str, number: int) -> None:
        super().__init__(root / f"valkey-{number}", identity)
        self.bus = free_port()

    def settings(self) -> str:
        """The text of valkey.conf."""
        return super().settings() + (
            f"cluster-enabled yes\ncluster-port {self.bus}\ncluster-node-timeout {NODE_TIMEOUT_MS}\n"
            "cluster-require-full-coverage no\n"  # a master that is gone takes nobody else's slots with it
            "repl-diskless-sync-delay 0\n"  # no other replica is waited for
        )

    def asked(self, *command: str | int) -> Any:
        """Return the answer to a command."""
        with redis.Redis(port=self.port, host=HOST, socket_timeout=5, decode_responses=True) as client:
            return client.execute_command(*command)


class Group(Running, Generic[S]):
    """Servers that are started and stopped together; as a context manager they end with the block."""

    def __init__(self, members: Iterable[S]) -> None:
        self.members = list(members)

    def start(self) -> None:
        """Start them and wait until all are healthy; if one fails, none of them stays."""
        try:
            _together(lambda one: one.start(), self.members)
            _together(lambda one: one.wait_healthy(), self.members)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop them; their data stays."""
        _together(lambda one: one.stop(), self.members)


class KafkaCluster(Group[Broker]):
    """Brokers; `address` names all of them."""

    def __init__(self, root: Path, count: int = 3) -> None:
        root.mkdir(parents=True, exist_ok=True)
        voters = {number: free_port() for number in range(1, count + 1)}
        super().__init__(Broker(root, stack_identity(root), number, voters) for number in voters)
        self.address = ",".join(one.address for one in self.members)

    def start(self) -> None:
        """Fetch the jars once, and start."""
        fetch((Kafka.name,), False)
        super().start()


class ValkeyCluster(Group[Member]):
    """Masters, and after them as many replicas of each as `replicas` says."""

    def __init__(self, root: Path, masters: int = 3, replicas: int = 0) -> None:
        super().__init__(Member(root, "", number) for number in range(1, masters * (1 + replicas) + 1))
        self.masters, self.replicas = self.members[:masters], self.members[masters:]
        self.url = "redis+cluster://" + ",".join(one.address for one in self.masters)

    def start(self) -> None:
        """Start them, the first time as a cluster that is yet to be made."""
        super().start()
        try:
            if self.members[0].asked("CLUSTER INFO")["cluster_slots_assigned"] == "0":
                self._form()
            _until("the Valkeys are one cluster", self.formed)
        except BaseException:
            self.stop()
            raise

    def formed(self) -> bool:
        """Whether every member knows all of them and a living master of every slot, and replicas have their data."""
        told = [one.asked("CLUSTER INFO") for one in self.members]
        roles = [one.asked("ROLE") for one in self.members]
        return all(role == "master" or state[2] == "connected" for role, *state in roles) and all(
            info["cluster_state"] == "ok"
            and info["cluster_slots_ok"] == str(SLOTS)
            and info["cluster_known_nodes"] == str(len(self.members))
            for info in told
        )

    def _form(self) -> None:
        first, *others = self.members
        for epoch, member in enumerate(self.members, start=1):
            member.asked("CLUSTER SET-CONFIG-EPOCH", epoch)
        share = SLOTS / len(self.masters)
        for number, master in enumerate(self.masters):
            master.asked("CLUSTER ADDSLOTSRANGE", round(number * share), round((number + 1) * share) - 1)
        for member in others:
            member.asked("CLUSTER MEET", HOST, first.port, first.bus)
        known = str(len(self.members))
        _until(
            "the Valkeys know each other",
            lambda: all(one.asked("CLUSTER INFO")["cluster_known_nodes"] == known for one in self.members),
        )
        for number, replica in enumerate(self.replicas):
            master = self.masters[number % len(self.masters)]
            replica.asked("CLUSTER REPLICATE", master.asked("CLUSTER MYID"))


class LocalCluster(Running):
    """Kafka and Valkey as clusters, with one Cassandra; their data and logs are below `folder`."""

    def __init__(self, folder: Path, brokers: int = 3, masters: int = 3, replicas: int = 0) -> None:
        folder = folder.absolute()
        self.kafka = KafkaCluster(folder, brokers)
        self.valkey = ValkeyCluster(folder, masters, replicas)
        self.cassandra = Cassandra(folder, stack_identity(folder))
        self._groups: Sequence[Group[Any]] = (self.kafka, self.valkey, Group([self.cassandra]))

    def environment(self) -> dict[str, str]:
        """The addresses, as the environment variables that the services read."""
        return {
            "HEADRACE_KAFKA": self.kafka.address,
            "HEADRACE_REDIS": self.valkey.url,
            "HEADRACE_CASSANDRA": self.cassandra.address,
        }

    def start(self) -> None:
        """Start all of it together; if one server fails, none stays."""
        fetch((Kafka.name, Cassandra.name), False)
        try:
            _together(lambda group: group.start(), self._groups)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all of it."""
        _together(lambda group: group.stop(), self._groups)


T = TypeVar("T")


def _together(action: Callable[[T], None], those: Sequence[T]) -> None:
    with ThreadPoolExecutor(len(those)) as pool:
        for done in [pool.submit(partial(action, one)) for one in those]:
            done.result()


def _until(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + FORMED_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise LocalServerError(f"it took more than {FORMED_SECONDS:.0f} s until {what}")
        time.sleep(POLL)
