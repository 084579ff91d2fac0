"""Entity snapshots in Cassandra: a partition's rows in buckets, its header beside them.

It connects when it is first needed, and never creates a table, which is the history's to do: without Cassandra, or
before its first history, there are no snapshots, and nothing waits for them.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from zlib import crc32

from cassandra.query import PreparedStatement

from infra import cassandra as cql
from streams.settings import Cassandra
from streams.stores.cql import CqlSession, Row, grouped
from streams.stores.history import OnRetry, StoreUnreachable
from streams.stores.state import Checkpoint, SnapshotsUnavailable, States

BUCKETS = 16  # a quarter of a million entities of a kilobyte come to some 16 MB a Cassandra partition
PAGE = 500  # rows read at a time
HEADER_SECONDS = 5.0  # a claim waits for the header


class CassandraEntitySnapshots:
    """EntitySnapshots in a cluster; a state that is not written again goes after
    `ttl_ms`. While the cluster is away, all but `header` waits and tries again."""

    def __init__(self, cassandra: Cassandra, keyspace: str, ttl_ms: int, on_retry: OnRetry) -> None:
        self._address, self._keyspace, self._ttl = cassandra, keyspace, -(-ttl_ms // 1000)
        self._session = CqlSession(cassandra, on_retry)
        self._opening: asyncio.Task[None] | None = None

    async def header(self, partition: str) -> Checkpoint | None:
        try:
            async with asyncio.timeout(HEADER_SECONDS):
                await self._connect()
                rows = await self._session.execute(self._select_header.bind((partition,)))
        except TimeoutError:
            raise SnapshotsUnavailable(f"Cassandra at {self._address} does not answer") from None
        if not rows:
            return None
        ((position, record),) = rows
        return Checkpoint.opened(record, partition, position)

    async def rows(self, partition: str, position: int) -> AsyncIterator[States]:
        await self._connect()
        for bucket in range(BUCKETS):
            entity, at = b"", -1
            newest: tuple[bytes, bytes] | None = None  # of the entity that the page before ended with
            while rows := await self._page(partition, bucket, entity, at):
                states = dict([newest] if newest else [])
                states |= {entity: state for entity, at, state in rows if at <= position}
                entity, at, _ = rows[-1]
                newest = (entity, states.pop(entity)) if entity in states else None
                yield list(states.items())
            if newest:
                yield [newest]

    async def write(self, partition: str, position: int, states: States) -> None:
        await self._connect()
        bind = self._insert_state.bind
        await self._session.write(
            bind((partition, _bucket(entity), entity, position, state, self._ttl)) for entity, state in states
        )

    async def conclude(self, partition: str, header: Checkpoint) -> None:
        await self._connect()
        position, record = header.position, header.sealed(partition, header.position)
        await self._session.execute(self._insert_header.bind((partition, position, record, position)))

    async def prune(self, partition: str, position: int, entities: Sequence[bytes]) -> None:
        await self._connect()
        bind = self._delete_states.bind
        buckets = grouped(entities, _bucket)
        await self._session.write(bind((partition, _bucket(bucket[0]), bucket, position)) for bucket in buckets)

    async def close(self) -> None:
        if self._opening and not (await asyncio.wait([self._opening]))[0].pop().exception():
            await self._session.close()

    async def _page(self, partition: str, bucket: int, entity: bytes, position: int) -> list[Row]:
        select = self._select_states.bind((partition, bucket, entity, position, PAGE))
        select.fetch_size = PAGE  # one page
        return await self._session.execute(select)

    async def _connect(self) -> None:
        """Connect unless that is done; an attempt goes on if its waiter gives up, as the driver's cannot be ended."""
        if self._opening is None or (self._opening.done() and self._opening.exception()):
            self._opening = asyncio.create_task(self._open())
        await asyncio.shield(self._opening)

    async def _open(self) -> None:
        try:
            await asyncio.to_thread(self._session.connect, [])
            try:
                await asyncio.to_thread(self._prepare)
            except StoreUnreachable:
                await self._session.close()
                raise
        except StoreUnreachable as error:
            raise SnapshotsUnavailable(str(error)) from None

    def _prepare(self) -> None:
        def prepared(statement: str) -> PreparedStatement:
            return self._session.prepare(statement.format(keyspace=self._keyspace))

        self._insert_state = prepared(cql.INSERT_ENTITY_STATE)
        self._select_states = prepared(cql.SELECT_ENTITY_STATES)
        self._delete_states = prepared(cql.DELETE_ENTITY_STATES)
        self._insert_header = prepared(cql.INSERT_ENTITY_SNAPSHOT)
        self._select_header = prepared(cql.SELECT_ENTITY_SNAPSHOT)


def _bucket(entity: bytes) -> int:
    return crc32(entity) % BUCKETS
