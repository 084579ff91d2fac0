"""The history in Cassandra: the driver's futures bridged to asyncio, rows in small unlogged batches.

A statement costs the Python driver about 100 µs, a row inside a batch a tenth of that. So rows are grouped by
the nodes that own them, as the Spark connector does: each batch goes to a node that has all of its rows.
"""

import asyncio
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec
from cassandra import ConsistencyLevel, DriverException, OperationTimedOut, RequestExecutionException
from cassandra.cluster import (
    EXEC_PROFILE_DEFAULT,
    Cluster,
    ExecutionProfile,
    NoHostAvailable,
    ResponseFuture,
)
from cassandra.connection import ConnectionException
from cassandra.policies import ConstantReconnectionPolicy, DCAwareRoundRobinPolicy, TokenAwarePolicy
from cassandra.query import BatchStatement, BatchType, BoundStatement, PreparedStatement, tuple_factory

from infra import cassandra as cql
from schemas.events import Label, Score
from streams.stores.history import (
    DAY_MS,
    EntityScore,
    OnRetry,
    Scored,
    StoreUnreachable,
    label_written_at,
    newest,
    score_written_at,
)

BATCH_BYTES = 32 * 1024
"""Values in one batch; Cassandra refuses batches above 50 KiB unless told otherwise."""

IDS_PER_READ = 64
IN_FLIGHT = 8
"""Requests under way at a time: enough to keep a node busy, few enough not to queue in it."""

REQUEST_SECONDS, SCHEMA_SECONDS = 10.0, 60.0
FIRST_BACKOFF, LONGEST_BACKOFF = 0.1, 5.0

PASSING = (NoHostAvailable, OperationTimedOut, RequestExecutionException, ConnectionException)
"""Errors of a cluster that is away, restarting or overloaded; what is not among them is a fault of ours."""

KEYSPACE = re.compile(r"[a-zA-Z]\w{0,47}", re.ASCII)

DATE_ZERO = 2**31
"""The epoch as a CQL date, bound as a number."""

T = TypeVar("T")


def _quiet(_: Exception) -> None:
    pass


class CassandraHistory:
    """A HistoryStore of one use case in the cluster behind `address` (HOST:PORT); `on_retry` is told of every
    failed attempt. Rows and reads are idempotent, so what may pass is tried again, for ever.
    """

    def __init__(self, address: str, keyspace: str, usecase: str, on_retry: OnRetry = _quiet) -> None:
        self._address = address
        self._keyspace = keyspace
        self._usecase = usecase
        self._on_retry = on_retry
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._decode = msgspec.json.Decoder(Score).decode

    async def start(self) -> None:
        """Connect, create what is missing of the schema, and prepare the statements, all off the loop.

        Raises StoreUnreachable.
        """
        if not KEYSPACE.fullmatch(self._keyspace):
            raise StoreUnreachable(f"Cassandra: '{self._keyspace}' cannot be the name of a keyspace")
        # What matters of the driver's own warnings is in the errors raised and told of here.
        logging.getLogger("cassandra").setLevel(logging.CRITICAL)
        await asyncio.to_thread(self._connect)

    def _connect(self) -> None:
        host, _, port = self._address.rpartition(":")
        cluster = Cluster(
            [host],
            port=int(port),
            execution_profiles={EXEC_PROFILE_DEFAULT: _profile()},
            reconnection_policy=ConstantReconnectionPolicy(1.0, max_attempts=None),
        )
        try:
            self._session = cluster.connect()
            for statement in cql.schema(self._keyspace):
                self._session.execute(statement, timeout=SCHEMA_SECONDS)
            self._prepare()
        except (NoHostAvailable, DriverException, OSError) as error:
            cluster.shutdown()
            raise StoreUnreachable(f"Cassandra at {self._address}: {_cause(error)}") from None

    def _prepare(self) -> None:
        def prepared(statement: str) -> PreparedStatement:
            answer = self._session.prepare(statement.format(keyspace=self._keyspace))
            answer.is_idempotent = True
            return answer

        self._insert_score = prepared(cql.INSERT_SCORE)
        self._insert_by_entity = prepared(cql.INSERT_SCORE_BY_ENTITY)
        self._insert_label = prepared(cql.INSERT_LABEL)
        self._select_scores = prepared(cql.SELECT_SCORES)
        self._select_labels = prepared(cql.SELECT_LABELS)
        self._select_day = prepared(cql.SELECT_ENTITY_DAY)

    async def close(self) -> None:
        """Give the connections back."""
        await asyncio.to_thread(self._session.cluster.shutdown)

    async def write_scores(self, scores: Sequence[Scored]) -> None:
        """Keep scores, by event and by each entity and day."""
        await self._write([row for scored in newest(scores) for row in self._score_rows(scored)])

    async def write_labels(self, labels: Sequence[Label]) -> None:
        """Keep labels by event."""
        newest_labels = {label.event_id: label for label in sorted(labels, key=label_written_at)}
        bind = self._insert_label.bind
        await self._write(
            [
                bind((self._usecase, label.event_id, label.label_time, label.label, label_written_at(label)))
                for label in newest_labels.values()
            ]
        )

    async def scores(self, event_ids: Sequence[str]) -> dict[str, Score]:
        """Return the scores that are there, by event id."""
        rows = await self._read(self._select_scores, event_ids)
        return {event_id: self._decode(record) for event_id, record in rows}

    async def labels(self, event_ids: Sequence[str]) -> dict[str, Label]:
        """Return the labels that are there, by event id."""
        rows = await self._read(self._select_labels, event_ids)
        return {event_id: Label(event_id, time, label) for event_id, time, label in rows}

    async def entity_day(self, entity: str, id_: str, day: int, limit: int = 1000) -> list[EntityScore]:
        """Return the entity's newest events of a day (days since the epoch, UTC), newest first."""
        rows = await self._execute(self._select_day.bind((self._usecase, entity, id_, DATE_ZERO + day, limit)))
        return [EntityScore(*row) for row in rows]

    def _score_rows(self, scored: Scored) -> Iterator[BoundStatement]:
        score, usecase, time = scored.score, self._usecase, score_written_at(scored)
        event_id, event_time = score.event_id, score.event_time
        said = (score.score, score.decision, score.model_id)
        yield self._insert_score.bind((usecase, event_id, event_time, *said, scored.record, time))
        day = DATE_ZERO + event_time // DAY_MS
        for entity, id_ in score.entities.items():
            yield self._insert_by_entity.bind((usecase, entity, id_, day, event_time, event_id, *said, time))

    async def _write(self, rows: Iterable[BoundStatement]) -> None:
        owned = grouped(rows, lambda row: self._owners(row.routing_key))
        await asyncio.gather(*(self._execute(_batch(chunk)) for group in owned for chunk in chunks(group)))

    async def _read(self, select: PreparedStatement, event_ids: Sequence[str]) -> list[tuple[Any, ...]]:
        """Read by event id, as many ids at once as one node can answer of its own."""
        unique = list(dict.fromkeys(event_ids))
        owned = grouped(unique, lambda event_id: self._owners(composite_key(self._usecase, event_id)))
        reads = [group[at : at + IDS_PER_READ] for group in owned for at in range(0, len(group), IDS_PER_READ)]
        answers = await asyncio.gather(*(self._execute(self._select(select, ids)) for ids in reads))
        return [row for rows in answers for row in rows]

    def _select(self, select: PreparedStatement, ids: list[str]) -> BoundStatement:
        bound = BoundStatement(select, routing_key=composite_key(self._usecase, ids[0]))
        return bound.bind((self._usecase, ids))

    def _owners(self, routing_key: bytes) -> Hashable:
        """Return what two rows have in common that the same nodes own."""
        metadata = self._session.cluster.metadata
        if len(metadata.all_hosts()) == 1:
            return None
        return frozenset(host.endpoint for host in metadata.get_replicas(self._keyspace, routing_key))

    async def _execute(self, statement: BoundStatement | BatchStatement) -> list[tuple[Any, ...]]:
        """Return the rows of the answer, after as many attempts as it takes."""
        backoff = FIRST_BACKOFF
        while True:
            try:
                async with self._slots:
                    return await _bridge(self._session.execute_async(statement))
            except PASSING as error:
                self._on_retry(error)
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, LONGEST_BACKOFF)


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
        bytes_ = sum(map(len, row.values))
        if chunk and size + bytes_ > limit:
            yield chunk
            chunk, size = [], 0
        chunk.append(row)
        size += bytes_
    if chunk:
        yield chunk


def composite_key(*parts: str) -> bytes:
    """Return a partition key of several text columns as Cassandra hashes it: each with its size before and a
    zero after it."""
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


def _bridge(response: ResponseFuture) -> "asyncio.Future[list[tuple[Any, ...]]]":
    """Return an asyncio future for the driver's, which is completed on a thread of its own."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[tuple[Any, ...]]] = loop.create_future()

    def settle(set_: Callable[[Any], None], value: Any) -> None:
        if not future.done():  # it is when its waiter was cancelled
            set_(value)

    response.add_callbacks(
        lambda rows: loop.call_soon_threadsafe(settle, future.set_result, rows or []),
        lambda error: loop.call_soon_threadsafe(settle, future.set_exception, error),
    )
    return future


def _cause(error: BaseException) -> str:
    """Return the first line of what lies at the bottom of an error of the driver."""
    if isinstance(error, NoHostAvailable) and error.errors:
        return _cause(next(iter(error.errors.values())))
    return (str(error).splitlines() or [type(error).__name__])[0]
