"""The model registry in Cassandra: an announcement in parts, its snapshots by day and by name.

The order of effects: 1. the record's parts; 2. the rows that name it. A crash between the two leaves parts that
nobody names, until the same record is written again, or they expire.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from cassandra.query import BoundStatement, PreparedStatement

from infra import cassandra as cql
from schemas.events import ModelSnapshot
from streams.settings import Cassandra
from streams.stores.cql import CqlSession, Row
from streams.stores.history import DAY_MS, OnRetry
from streams.stores.registry import Change, Keep, Registered, announcement_name, registered

MODEL_DAYS = 180
"""How far back snapshots are looked for: as long as the scores that name them, and the rows, are kept."""

DAYS_AT_ONCE = 16  # asked at a time whether there is anything of them
CHANGE_YEARS = 10

PART_BYTES = 512 * 1024
PAGE = 500  # rows read at a time
DATE_ZERO = 2**31  # the epoch as a CQL date, bound as a number


class CassandraRegistry:
    """A ModelRegistry of one use case in a cluster."""

    def __init__(self, cassandra: Cassandra, keyspace: str, usecase: str, on_retry: OnRetry) -> None:
        self._keyspace, self._usecase = keyspace, usecase
        self._session = CqlSession(cassandra, on_retry)

    async def start(self) -> None:
        """Connect, create what is missing of the schema, and prepare the statements, all off the loop.

        Raises StoreUnreachable.
        """
        await asyncio.to_thread(self._connect)

    def _connect(self) -> None:
        self._session.connect(cql.schema(self._keyspace))

        def prepared(statement: str) -> PreparedStatement:
            return self._session.prepare(statement.format(keyspace=self._keyspace))

        self._insert_part = prepared(cql.INSERT_ANNOUNCEMENT_PART)
        self._insert_model = prepared(cql.INSERT_MODEL)
        self._insert_by_day = prepared(cql.INSERT_MODEL_BY_DAY)
        self._insert_change = prepared(cql.INSERT_ALIAS_CHANGE)
        self._select_parts = prepared(cql.SELECT_ANNOUNCEMENT_PARTS)
        self._select_named = prepared(cql.SELECT_MODELS)
        self._select_day = prepared(cql.SELECT_MODELS_OF_DAY)
        self._select_changes = prepared(cql.SELECT_ALIAS_CHANGES)

    async def close(self) -> None:
        await self._session.close()

    async def write(self, record: bytes, models: Sequence[ModelSnapshot], keep: Keep) -> None:
        name = announcement_name(record)
        # What is kept longer is the later write, so that the same record, written again after a crash, stays so.
        parts = [record[at : at + PART_BYTES] for at in range(0, len(record), PART_BYTES)]
        bind = self._insert_part.bind
        await self._session.write(
            bind((self._usecase, name, at, len(parts), part, keep.value, keep.value)) for at, part in enumerate(parts)
        )
        await self._session.write(row for one in registered(record, models, keep) for row in self._rows(one))

    async def write_change(self, change: Change) -> None:
        values = (self._usecase, _year(change.changed_at), *change, change.changed_at * 1000)
        await self._session.execute(self._insert_change.bind(values))

    async def newest(self, until: int) -> AsyncGenerator[Registered, None]:
        last = until // DAY_MS
        for first in range(last, last - MODEL_DAYS - 1, -DAYS_AT_ONCE):
            days = range(first, first - DAYS_AT_ONCE, -1)
            heads = await asyncio.gather(*(self._of_day(day, until + 1, "", 1) for day in days))
            for day, head in zip(days, heads, strict=True):
                time, model_id = until + 1, ""
                while head and (rows := await self._of_day(day, time, model_id, PAGE)):
                    for row in rows:
                        yield _registered(row)
                    time, model_id = rows[-1][:2]

    async def named(self, model_id: str) -> list[Registered]:
        return [_registered(row) for row in await self._read(self._select_named, PAGE, self._usecase, model_id, PAGE)]

    async def record(self, announcement: str) -> bytes | None:
        parts: list[bytes] = []
        while rows := await self._read(self._select_parts, 1, self._usecase, announcement, len(parts)):
            ((count, part),) = rows
            parts.append(part)
            if len(parts) == count:
                return b"".join(parts)
        return None

    async def changes(self, until: int) -> AsyncGenerator[Change, None]:
        year = _year(until)
        for number in range(year, year - CHANGE_YEARS, -1):
            time, offset = until + 1, -1
            while rows := await self._read(self._select_changes, PAGE, self._usecase, number, time, offset, PAGE):
                for row in rows:
                    yield Change(*row)
                time, offset = rows[-1][:2]

    def _rows(self, row: Registered) -> Iterator[BoundStatement]:
        values = (*row, row.kept_until * 1000)
        yield self._insert_model.bind((self._usecase, *values))
        yield self._insert_by_day.bind((self._usecase, DATE_ZERO + row.created_at // DAY_MS, *values))

    async def _of_day(self, day: int, time: int, model_id: str, limit: int) -> list[Row]:
        """Return snapshots of a day from before that one, newest first."""
        return await self._read(self._select_day, limit, self._usecase, DATE_ZERO + day, time, model_id, limit)

    async def _read(self, select: PreparedStatement, page: int, *values: Any) -> list[Row]:
        statement = select.bind(values)
        statement.fetch_size = page  # one page
        return await self._session.execute(statement)


def _registered(row: Row) -> Registered:
    found = Registered(*row)
    # The driver's map type is its own, and an empty collection is a null.
    return found._replace(example_offsets=dict(found.example_offsets or {}), metrics=dict(found.metrics or {}))


def _year(time: int) -> int:
    return datetime.fromtimestamp(time / 1000, UTC).year
