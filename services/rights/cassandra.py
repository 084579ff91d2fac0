"""The rights on Cassandra: a role's grants, table by table."""

import asyncio
from collections.abc import Iterable, Iterator

from services.rights.table import Rights
from streams.settings import Cassandra
from streams.stores.cql import CqlSession


def grants(user: str, rights: Rights, keyspace: str) -> Iterator[str]:
    """Yield the statements that give a role what it may do."""
    for permission, tables in (("SELECT", rights.selects), ("MODIFY", rights.modifies)):
        for table in tables:
            yield f'GRANT {permission} ON {keyspace}.{table} TO "{user}"'


def grant(cassandra: Cassandra, statements: Iterable[str]) -> None:
    """Run statements; blocks. Raises StoreUnreachable."""
    session = CqlSession(cassandra, _quiet)
    session.connect([])
    try:
        session.run(statements)
    finally:
        asyncio.run(session.close())


def _quiet(_: Exception) -> None:
    pass
