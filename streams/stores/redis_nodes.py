"""Which Redis keeps a partition: the one there is, or that master of a cluster which has the partition's slot.

Of a cluster each master has a plain client of its own. redis-py's cluster client follows redirections and repeats by
itself what only the store's caller knows may be repeated, and its time-outs add up. Here a redirection, like a
master that is gone, is a StoreUnavailable that makes the map of the slots doubtful: it is asked for anew before the
caller's next attempt. A slot that moves key by key (ASK, TRYAGAIN) is waited for until it has moved.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    ExecAbortError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.maint_notifications import MaintNotificationsConfig

from streams.stores.certificate import why_refused
from streams.stores.redis_packing import pack_quickly
from streams.stores.state import StoreRefused, StoreUnavailable

SOCKET_SECONDS = 5.0

PASSING = (ReadOnlyError, OutOfMemoryError, ClusterDownError, TryAgainError, ExecAbortError)
PASSING_CODES = ("NOREPLICAS", "MISCONF", "BUSY")
"""Replies of a Redis that fails over, is full or may not write for now; redis-py has no class for the latter."""

NOT_ALLOWED = (AuthenticationError, NoPermissionError)
NOT_ALLOWED_IN_SCRIPT = "ACL failure"
NOT_ALLOWED_AT_THE_END = "discarded because of: NOPERM"  # of a transaction

CLUSTER = "+cluster"
"""What the scheme of a cluster's URL ends in: `redis+cluster://host:port,host:port`, some nodes of it."""

Call = Callable[[Redis], Awaitable[Any]]


class Nodes(Protocol):
    """The servers of one URL; `address` is it without the password."""

    address: str

    async def asked(self, partition: str, call: Call) -> Any:
        """Return what the server that keeps `partition` answers.

        Raises StoreUnavailable, which names the server, and redis-py's ResponseError where trying again is no use.
        """

    async def ping(self) -> None:
        """Raise StoreUnavailable where a server that keeps partitions does not answer."""

    async def close(self) -> None:
        """Give the connections back."""


def nodes(url: str) -> Nodes:
    """Return the servers of a URL."""
    return Cluster(url) if urlsplit(url).scheme.endswith(CLUSTER) else Single(url)


class Node:
    """One server."""

    def __init__(self, address: str, url: str) -> None:
        self.address = address
        self.redis = Redis.from_url(
            url,
            socket_timeout=SOCKET_SECONDS,
            socket_connect_timeout=SOCKET_SECONDS,
            retry=Retry(NoBackoff(), 0),  # the caller repeats: it knows what may be repeated
            # Told of a move redis-py connects anew by itself, in the middle of a transaction, too.
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        pack_quickly(self.redis.connection_pool)

    async def asked(self, call: Call) -> Any:
        """Return what the server answers; raises as `Nodes.asked`."""
        try:
            return await call(self.redis)
        except AskError as error:
            raise StoreUnavailable(
                f"Redis at {self.address} sends on to {error.host}:{error.port}, as clusters do "
                f"(their URL begins with redis+cluster://)"
            ) from None
        except NOT_ALLOWED as error:
            raise self._refused(error) from None
        except ResponseError as error:
            if str(error).startswith(NOT_ALLOWED_IN_SCRIPT) or NOT_ALLOWED_AT_THE_END in str(error):
                raise self._refused(error) from None
            if isinstance(error, PASSING) or str(error).startswith(PASSING_CODES):
                raise StoreUnavailable(f"Redis at {self.address} does not serve: {error}") from None
            raise
        except (RedisError, OSError) as error:
            if why := why_refused(str(error)):
                raise StoreUnavailable(
                    f"HEADRACE_REDIS: the certificate of Redis at {self.address} is refused: {why}"
                ) from None
            raise StoreUnavailable(f"Redis at {self.address} does not answer: {error}") from None

    def _refused(self, error: RedisError) -> StoreRefused:
        return StoreRefused(f"HEADRACE_REDIS: Redis at {self.address} does not allow this process: {error}")


class Single:
    """One server, which keeps everything."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.address = parts.netloc.rpartition("@")[2] or parts.path
        self._node = Node(self.address, url)

    async def asked(self, _partition: str, call: Call) -> Any:
        return await self._node.asked(call)

    async def ping(self) -> None:
        await self._node.asked(_ping)

    async def close(self) -> None:
        await self._node.redis.aclose()


class Slots(NamedTuple):
    """The slots from `first` to `last` and the master that has them."""

    first: int
    last: int
    master: Node


class Cluster:
    """The masters of a cluster, which any node tells: at first one of the URL's, later any that is known."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        user, at, self.address = parts.netloc.rpartition("@")
        self._begin = parts.scheme.removesuffix(CLUSTER) + "://" + user + at
        self._end = f"?{parts.query}" if parts.query else ""
        self._nodes: dict[str, Node] = {}
        for address in self.address.split(","):
            self._node(address)
        self._map: list[Slots] = []
        self._doubtful = True
        self._doubted = ""  # the address of the node that failed last
        self._looking = asyncio.Lock()

    async def asked(self, partition: str, call: Call) -> Any:
        slot = key_slot(partition.encode())
        master = next((one.master for one in await self._slots() if one.first <= slot <= one.last), None)
        if master is None:
            self._doubtful = True
            raise StoreUnavailable(f"Redis Cluster at {self.address} has no master for slot {slot}")
        return await self._asked(master, call)

    async def ping(self) -> None:
        masters = {one.master.address: one.master for one in await self._slots()}
        await asyncio.gather(*(self._asked(master, _ping) for master in masters.values()))

    async def close(self) -> None:
        await asyncio.gather(*(node.redis.aclose() for node in self._nodes.values()))

    async def _asked(self, master: Node, call: Call) -> Any:
        try:
            return await master.asked(call)
        except StoreUnavailable:
            self._doubtful, self._doubted = True, master.address
            raise

    async def _slots(self) -> list[Slots]:
        async with self._looking:
            if self._doubtful:
                self._map = await self._look()
                self._doubtful = False
        return self._map

    async def _look(self) -> list[Slots]:
        """Ask one node after the other: masters before who may have left, the one in doubt last, as it may hang."""
        masters = {one.master.address for one in self._map}
        known = random.sample(sorted(self._nodes), len(self._nodes))
        known.sort(key=lambda address: (address == self._doubted, address not in masters))
        why = "no node is known"
        for address in known:
            try:
                rows = await self._nodes[address].asked(lambda redis: redis.cluster("SLOTS"))
            except (StoreUnavailable, ResponseError) as error:
                why = str(error)
                continue
            return [Slots(first, last, self._node(_address(place, address))) for first, last, place, *_ in rows]
        raise StoreUnavailable(f"no node of the Redis Cluster at {self.address} tells its slots: {why}")

    def _node(self, address: str) -> Node:
        if address not in self._nodes:
            self._nodes[address] = Node(address, f"{self._begin}{address}{self._end}")
        return self._nodes[address]


def _ping(redis: Redis) -> Awaitable[Any]:
    return redis.ping()


def _address(place: Sequence[Any], asked: str) -> str:
    """Return where a node is; one that does not know its own host is where it was asked.

    >>> _address([b"10.0.0.7", 6379, b"id"], "10.0.0.9:6379"), _address([None, 6380], "cache:6379")
    ('10.0.0.7:6379', 'cache:6380')
    """
    host = place[0].decode() if place[0] else "?"
    if host == "?":
        host = asked.rpartition(":")[0]
    return f"[{host}]:{place[1]}" if ":" in host and not host.startswith("[") else f"{host}:{place[1]}"
