"""What every store of entity snapshots does; memory is the reference, Cassandra must equal it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest

from infra.cassandra import schema
from infra.local.ports import free_port
from streams.features.table import StateRefused
from streams.stores.entity_snapshots import EntitySnapshots, MemoryEntitySnapshots
from streams.stores.entity_snapshots_cassandra import PAGE, CassandraEntitySnapshots
from streams.stores.state import Checkpoint, SnapshotsUnavailable
from tests.local import cassandra_session

KEYSPACE = "snapshots_contract"
TTL_MS = 60_000
IDS = [b"a", "ключ".encode(), b"\x00\xff{}:\r\n", b"x" * 512]

Scenario = Callable[[EntitySnapshots, str], Awaitable[None]]
Run = Callable[[Scenario], None]


@pytest.fixture(scope="module")
def created(cassandra_server: str) -> str:
    """The address of a Cassandra that has the tables."""
    with cassandra_session(cassandra_server) as session:
        for statement in schema(KEYSPACE):
            session.execute(statement)
    return cassandra_server


@pytest.fixture(params=["memory", pytest.param("cassandra", marks=pytest.mark.integration)])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a scenario with a store and a partition of its own."""
    partition = f"fraud.customer.{uuid4().hex}.0"
    address = request.getfixturevalue("created") if request.param == "cassandra" else None

    async def on_store(scenario: Scenario) -> None:
        store: EntitySnapshots = MemoryEntitySnapshots()
        if address:
            store = CassandraEntitySnapshots(address, KEYSPACE, TTL_MS, never)
        try:
            await scenario(store, partition)
        finally:
            await store.close()

    return lambda scenario: asyncio.run(asyncio.wait_for(on_store(scenario), 60))


def never(error: Exception) -> None:
    """Nothing fails here that would have to be tried again."""
    pytest.fail(str(error))


async def found(store: EntitySnapshots, partition: str, position: int) -> dict[bytes, bytes]:
    """The rows, each entity once."""
    rows = [pair async for page in store.rows(partition, position) for pair in page]
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def test_a_partition_that_was_never_archived_has_nothing(run: Run) -> None:
    """No header, no rows."""

    async def scenario(store: EntitySnapshots, partition: str) -> None:
        assert await store.header(partition) is None
        assert await found(store, partition, 1 << 40) == {}

    run(scenario)


def test_the_newest_state_up_to_the_position_counts(run: Run) -> None:
    """Of each entity one row: not a later one, and not an earlier one where there are two."""

    async def scenario(store: EntitySnapshots, partition: str) -> None:
        await store.write(partition, 10, [(id_, b"10") for id_ in IDS])
        await store.write(partition, 20, [(b"a", b"20"), (b"b", b"20")])
        await store.write(partition, 30, [(b"a", b"30"), (b"c", b"30")])
        others = dict.fromkeys(IDS[1:], b"10")
        assert await found(store, partition, 9) == {}
        assert await found(store, partition, 10) == {b"a": b"10"} | others
        assert await found(store, partition, 29) == {b"a": b"20", b"b": b"20"} | others
        assert await found(store, partition, 30) == {b"a": b"30", b"b": b"20", b"c": b"30"} | others
        assert await found(store, partition + "1", 30) == {}

    run(scenario)


def test_many_entities_of_several_versions(run: Run) -> None:
    """More rows than a page has, of entities whose versions lie on both sides of its end."""
    entities = [f"e{i}".encode() for i in range(8 * PAGE)]

    async def scenario(store: EntitySnapshots, partition: str) -> None:
        for position in range(3):
            await store.write(partition, position, [(one, one + b"%d" % position) for one in entities[position:]])
        expected = {one: one + b"%d" % min(i, 1) for i, one in enumerate(entities)}
        assert await found(store, partition, 1) == expected

    run(scenario)


def test_the_header_that_is_furthest_stays(run: Run) -> None:
    """Whatever order they come in: a former owner's last word may come late."""

    async def scenario(store: EntitySnapshots, partition: str) -> None:
        for header in (Checkpoint(5, b"m", 7), Checkpoint(9, bytes(range(256)), 9), Checkpoint(8, b"", 8)):
            await store.conclude(partition, header)
        assert await store.header(partition) == Checkpoint(9, bytes(range(256)), 9)

    run(scenario)


def test_rows_before_a_position_are_deleted(run: Run) -> None:
    """Of the entities named alone; writing a row again changes nothing."""

    async def scenario(store: EntitySnapshots, partition: str) -> None:
        for position in (1, 2, 3):
            await store.write(partition, position, [(one, b"%d" % position) for one in (b"a", b"b")])
        await store.prune(partition, 2, [b"a"])
        await store.write(partition, 3, [(b"a", b"3")])
        assert await found(store, partition, 1) == {b"b": b"1"}
        assert await found(store, partition, 2) == {b"a": b"2", b"b": b"2"}
        assert await found(store, partition, 3) == {b"a": b"3", b"b": b"3"}

    run(scenario)


@pytest.mark.integration
def test_a_damaged_header_is_refused(created: str) -> None:
    """One that was changed, or is another partition's, is no place to go on from."""
    name = f"fraud.customer.{uuid4().hex}.0"

    async def scenario() -> None:
        store = CassandraEntitySnapshots(created, KEYSPACE, TTL_MS, never)
        await store.conclude(name + "1", Checkpoint(5, b"", 7))
        with cassandra_session(created) as session:
            session.set_keyspace(KEYSPACE)
            (row,) = session.execute("SELECT record FROM entity_snapshots WHERE name = %s", (name + "1",))
            session.execute("INSERT INTO entity_snapshots (name, position, record) VALUES (%s, 7, %s)", (name, row[0]))
        with pytest.raises(StateRefused, match="damaged"):
            await store.header(name)
        await store.close()

    asyncio.run(asyncio.wait_for(scenario(), 30))


@pytest.mark.integration
def test_states_expire(created: str) -> None:
    """As in Redis: what is not written again has nothing in any window any more."""
    name = f"fraud.customer.{uuid4().hex}.0"

    async def scenario() -> None:
        store = CassandraEntitySnapshots(created, KEYSPACE, 1500, never)
        await store.write(name, 1, [(b"a", b"1")])
        deadline = time.monotonic() + 10
        while await found(store, name, 1):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        await store.close()

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_cassandra_that_is_not_there_is_named_at_once() -> None:
    """A claim is not held up by it; each attempt says where."""
    address = f"127.0.0.1:{free_port()}"

    async def scenario() -> None:
        store = CassandraEntitySnapshots(address, KEYSPACE, TTL_MS, lambda _: None)
        for _ in range(2):
            with pytest.raises(SnapshotsUnavailable, match=f"Cassandra at {address}"):
                await store.header("p")
        await store.close()

    asyncio.run(asyncio.wait_for(scenario(), 20))


@pytest.mark.integration
def test_a_cassandra_without_the_tables_is_as_good_as_none(cassandra_server: str) -> None:
    """The history makes them; until then there are no snapshots."""

    async def scenario() -> None:
        store = CassandraEntitySnapshots(cassandra_server, "nobody_made_it", TTL_MS, lambda _: None)
        with pytest.raises(SnapshotsUnavailable, match="nobody_made_it"):
            await store.header("p")
        await store.close()

    asyncio.run(asyncio.wait_for(scenario(), 20))
