"""The history in Cassandra: how scores and labels become rows, and rows scores and labels."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
from cassandra.query import BoundStatement, PreparedStatement

from infra import cassandra as cql
from schemas.events import Label, Score
from streams.settings import Cassandra
from streams.stores.cql import CqlSession, RoutedStatement, Row, composite_key
from streams.stores.history import (
    DAY_MS,
    EntityScore,
    KeptLabel,
    OnRetry,
    Scored,
    label_written_at,
    newest,
    score_written_at,
)

IDS_PER_READ = 64

DATE_ZERO = 2**31
"""The epoch as a CQL date, bound as a number."""


def _quiet(_: Exception) -> None:
    pass


class CassandraHistory:
    """A HistoryStore of one use case in a cluster."""

    def __init__(self, cassandra: Cassandra, keyspace: str, usecase: str, on_retry: OnRetry = _quiet) -> None:
        self._keyspace = keyspace
        self._usecase = usecase
        self._session = CqlSession(cassandra, on_retry)
        self._decode = msgspec.json.Decoder(Score).decode

    async def start(self) -> None:
        """Connect, create what is missing of the schema, and prepare the statements, all off the loop.

        Raises StoreUnreachable.
        """
        await asyncio.to_thread(self._connect)

    def _connect(self) -> None:
        self._session.connect(cql.schema(self._keyspace))

        def prepared(statement: str) -> PreparedStatement:
            return self._session.prepare(statement.format(keyspace=self._keyspace))

        self._insert_score = prepared(cql.INSERT_SCORE)
        self._insert_by_entity = prepared(cql.INSERT_SCORE_BY_ENTITY)
        self._insert_label = prepared(cql.INSERT_LABEL)
        self._select_scores = prepared(cql.SELECT_SCORES)
        self._select_labels = prepared(cql.SELECT_LABELS)
        self._select_day = prepared(cql.SELECT_ENTITY_DAY)

    async def ping(self) -> None:
        """Raise where no node answers."""
        await self._session.ping()

    async def close(self) -> None:
        """Give the connections back."""
        await self._session.close()

    async def write_scores(self, scores: Sequence[Scored]) -> None:
        """Keep scores, by event and by each entity and day."""
        await self._session.write(row for scored in newest(scores) for row in self._score_rows(scored))

    async def write_labels(self, labels: Sequence[KeptLabel]) -> None:
        """Keep labels by event."""
        in_order = sorted(labels, key=lambda kept: label_written_at(kept.label))
        latest = {kept.label.event_id: kept for kept in in_order}
        await self._session.write(self._label_row(kept) for kept in latest.values())

    async def scores(self, event_ids: Sequence[str]) -> dict[str, Score]:
        """Return the scores that are there, by event id."""
        rows = await self._read(self._select_scores, event_ids)
        return {event_id: self._decode(record) for event_id, record in rows}

    async def labels(self, event_ids: Sequence[str]) -> dict[str, KeptLabel]:
        """Return the labels that are there, by event id."""
        rows = await self._read(self._select_labels, event_ids)
        return {event_id: _kept_label(event_id, *columns) for event_id, *columns in rows}

    async def entity_day(self, entity: str, id_: str, day: int, limit: int = 1000) -> list[EntityScore]:
        """Return the entity's newest events of a day (days since the epoch, UTC), newest first."""
        select = self._select_day.bind((self._usecase, entity, id_, DATE_ZERO + day, limit))
        select.fetch_size = limit  # one page
        return [EntityScore(*row) for row in await self._session.execute(select)]

    def _label_row(self, kept: KeptLabel) -> BoundStatement:
        label, partition, offset, weight = kept
        columns = (label.label_time, label.label, label.assumed, partition, offset, weight)
        return self._insert_label.bind((self._usecase, label.event_id, *columns, label_written_at(label)))

    def _score_rows(self, scored: Scored) -> Iterator[BoundStatement]:
        score, usecase, time = scored.score, self._usecase, score_written_at(scored)
        event_id, event_time = score.event_id, score.event_time
        said = (score.score, score.decision, score.model_id)
        yield self._insert_score.bind((usecase, event_id, event_time, *said, scored.record, time))
        day = DATE_ZERO + event_time // DAY_MS
        for entity, id_ in score.entities.items():
            yield self._insert_by_entity.bind((usecase, entity, id_, day, event_time, event_id, *said, time))

    async def _read(self, select: PreparedStatement, event_ids: Sequence[str]) -> list[Row]:
        """Read by event id, as many ids at once as one node can answer of its own."""

        def place(event_id: str) -> tuple[str, bytes]:
            return self._keyspace, composite_key(self._usecase, event_id)

        reads = [
            RoutedStatement(select, place(group[at])[1]).bind((self._usecase, group[at : at + IDS_PER_READ]))
            for group in self._session.by_owners(dict.fromkeys(event_ids), place)
            for at in range(0, len(group), IDS_PER_READ)
        ]
        answers = await asyncio.gather(*map(self._session.execute, reads))
        return [row for rows in answers for row in rows]


def _kept_label(
    event_id: str,
    time: int,
    label: Literal[0, 1],
    assumed: bool | None,
    partition: int | None,
    offset: int | None,
    weight: float | None,
) -> KeptLabel:
    # A row from before these columns: somebody said so, and it was learnt.
    return KeptLabel(Label(event_id, time, label, bool(assumed)), partition, offset, 1.0 if weight is None else weight)
