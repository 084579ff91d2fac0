"""Cassandra from asyncio: the driver's futures bridged, passing failures tried again, rows in unlogged batches.

A statement costs the Python driver about 100 µs, a row inside a batch a tenth of that. So rows are grouped by
the nodes that own them, as the Spark connector does: each batch goes to a node that has all of its rows.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import suppress
from re import fullmatch
from typing import Any, TypeVar

from cassandra import (
    ConsistencyLevel,
    DriverException,
    OperationTimedOut,
    RequestExecutionException,
    Unauthorized,
    UnresolvableContactPoints,
)
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable, ResponseFuture
from cassandra.connection import ConnectionException
from cassandra.policies import ConstantReconnectionPolicy, DCAwareRoundRobinPolicy, TokenAwarePolicy
from cassandra.query import BatchStatement, BatchType, BoundStatement, PreparedStatement, tuple_factory

from streams.settings import Cassandra, CassandraAccess
from streams.stores.cql_refusal import unreachable
from streams.stores.history import OnRetry, StoreUnreachable

BATCH_BYTES = 32 * 1024
"""Values in one batch; Cassandra refuses batches above 50 KiB unless told otherwise."""

IN_FLIGHT = 8
"""Requests under way at a time: enough to keep a node busy, few enough not to queue in it."""

REQUEST_SECONDS, SCHEMA_SECONDS = 10.0, 60.0
FIRST_BACKOFF, LONGEST_BACKOFF = 0.1, 5.0

PASSING = (NoHostAvailable, OperationTimedOut, RequestExecutionException, ConnectionException)
"""Errors of a cluster that is away, restarting or overloaded; what is not among them is a fault of ours."""

PING = "SELECT key FROM system.local"

T = TypeVar("T")
Row = tuple[Any, ...]


class CqlSession:
    """A connection to the cluster behind a node; `on_retry` is told of every failed attempt.

    Only idempotent statements are sent, so what may pass is tried again, for ever.
    """

    def __init__(self, cassandra: Cassandra, on_retry: OnRetry) -> None:
        self._access = cassandra if isinstance(cassandra, CassandraAccess) else CassandraAccess(cassandra)
        self._on_retry = on_retry
        self._slots = asyncio.Semaphore(IN_FLIGHT)

    def connect(self, schema: Iterable[str]) -> None:
        """Connect and create what is missing of the schema; blocks. Raises StoreUnreachable."""
        # What matters of the driver's own warnings is in the errors raised and told of here.
        logging.getLogger("cassandra").setLevel(logging.CRITICAL)
        host, _, port = self._access.address.rpartition(":")
        try:
            self._cluster = Cluster(
                [host],
                port=int(port),
                ssl_context=(tls := self._access.tls()),
                ssl_options=_named(host) if tls else None,
                auth_provider=_authenticator(self._access),
                execution_profiles={EXEC_PROFILE_DEFAULT: _profile()},
                reconnection_policy=ConstantReconnectionPolicy(1.0, max_attempts=None),
                # 5 and 2 seconds by default: less than a busy node may stand still.
                connect_timeout=REQUEST_SECONDS,
                control_connection_timeout=REQUEST_SECONDS,
            )
        except UnresolvableContactPoints:
            raise StoreUnreachable(f"Cassandra at {self._access}: no such host") from None
        try:
            self._session = self._cluster.connect()
            with suppress(Unauthorized):  # others create it then; what is not there is told of by `prepare`
                self._run(schema)
        except (NoHostAvailable, DriverException, OSError) as error:
            self._cluster.shutdown()
            raise unreachable(self._access, error) from None

    def run(self, statements: Iterable[str]) -> None:
        """Run statements of an administrator, one after the other; blocks. Raises StoreUnreachable."""
        try:
            self._run(statements)
        except (NoHostAvailable, DriverException) as error:
            raise unreachable(self._access, error) from None

    def prepare(self, statement: str) -> PreparedStatement:
        """Prepare an idempotent statement; blocks. Raises StoreUnreachable where the schema is another."""
        try:
            prepared = self._session.prepare(statement)
        except (NoHostAvailable, DriverException) as error:
            raise unreachable(self._access, error) from None
        prepared.is_idempotent = True
        return prepared

    def _run(self, statements: Iterable[str]) -> None:
        for statement in statements:
            self._session.execute(statement, timeout=SCHEMA_SECONDS)

    async def close(self) -> None:
        """Give the connections back."""
        await asyncio.to_thread(self._cluster.shutdown)

    async def ping(self) -> None:
        """Raise StoreUnreachable where no node answers."""
        try:
            await _bridge(self._session.execute_async(PING))
        except PASSING as error:
            raise unreachable(self._access, error) from None

    async def write(self, rows: Iterable[BoundStatement]) -> None:
        """Write rows; returns once all of them are kept."""
        owned = self.by_owners(rows, lambda row: (row.keyspace, row.routing_key))
        await asyncio.gather(*(self.execute(_batch(chunk)) for group in owned for chunk in chunks(group)))

    def by_owners(self, items: Iterable[T], place: Callable[[T], tuple[str, bytes]]) -> list[list[T]]:
        """Return the items by the nodes that own them, so that one of these can deal with each group alone;
        `place` answers an item's keyspace and partition key."""
        metadata = self._cluster.metadata
        if len(metadata.all_hosts()) == 1:
            return [list(items)]
        return grouped(items, lambda item: frozenset(host.endpoint for host in metadata.get_replicas(*place(item))))

    async def execute(self, statement: BoundStatement | BatchStatement) -> list[Row]:
        """Return the first page of the answer, after as many attempts as it takes."""
        backoff = FIRST_BACKOFF
        while True:
            try:
                async with self._slots:
                    return await _bridge(self._session.execute_async(statement))
            except Unauthorized as error:
                raise unreachable(self._access, error) from None
            except PASSING as error:
                self._on_retry(unreachable(self._access, error))
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, LONGEST_BACKOFF)


class RoutedStatement(BoundStatement):
    """A statement that says itself which partition it is about: the driver finds none for `IN ?`."""

    def __init__(self, prepared: PreparedStatement, partition_key: bytes) -> None:
        super().__init__(prepared)
        self._partition_key = partition_key

    @property
    def routing_key(self) -> bytes:
        """The partition key, for the choice of the node."""
        return self._partition_key


def _named(host: str) -> dict[str, str]:
    """What the nodes' certificates must say: the name that we have for them, if it is one, else each its address.

    Nodes tell of each other by addresses, which nobody knows beforehand where they run in containers.

    >>> _named("cassandra"), _named("10.0.0.7")
    ({'server_hostname': 'cassandra'}, {})
    """
    return {} if fullmatch(r"[\d.]+|.*:.*", host) else {"server_hostname": host}


def _authenticator(access: CassandraAccess) -> PlainTextAuthProvider | None:
    return PlainTextAuthProvider(access.user, access.password) if access.user else None


def _profile() -> ExecutionProfile:
    return ExecutionProfile(
        # Of the nodes of the local data centre, one that owns the row.
        load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy()),
        consistency_level=ConsistencyLevel.LOCAL_QUORUM,
        request_timeout=REQUEST_SECONDS,
        row_factory=tuple_factory,
    )


def grouped(items: Iterable[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    """Return the items by key, their order kept within each.

    >>> grouped([1, 2, 3, 4], lambda number: number % 2)
    [[1, 3], [2, 4]]
    """
    groups: dict[Hashable, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return list(groups.values())


def chunks(rows: Iterable[BoundStatement], limit: int = BATCH_BYTES) -> Iterator[list[BoundStatement]]:
    """Cut rows into runs whose values have at most `limit` bytes; a larger row runs alone."""
    chunk: list[BoundStatement] = []
    size = 0
    for row in rows:
        row_size = sum(len(value or b"") for value in row.values)
        if chunk and size + row_size > limit:
            yield chunk
            chunk, size = [], 0
        chunk.append(row)
        size += row_size
    if chunk:
        yield chunk


def composite_key(*parts: str) -> bytes:
    """Return a partition key of several text columns as Cassandra hashes it: each with its size before and a
    zero after it.

    >>> composite_key("a", "bc")
    b'\\x00\\x01a\\x00\\x00\\x02bc\\x00'
    """
    encoded = [part.encode() for part in parts]
    return b"".join(len(part).to_bytes(2, "big") + part + b"\0" for part in encoded)


def _batch(rows: list[BoundStatement]) -> BoundStatement | BatchStatement:
    if len(rows) == 1:
        return rows[0]
    batch = BatchStatement(BatchType.UNLOGGED)
    batch.is_idempotent = True
    for row in rows:
        batch.add(row)
    return batch


def _bridge(response: ResponseFuture) -> "asyncio.Future[list[Row]]":
    """Return an asyncio future for the driver's, which is completed on a thread of its own."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[Row]] = loop.create_future()

    def settle(set_: Callable[[Any], None], value: Any) -> None:
        if not future.done():  # it is when its waiter was cancelled
            set_(value)

    response.add_callbacks(
        lambda rows: loop.call_soon_threadsafe(settle, future.set_result, rows or []),
        lambda error: loop.call_soon_threadsafe(settle, future.set_exception, error),
    )
    return future
