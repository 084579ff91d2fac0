"""What every model registry does; memory is the reference, Cassandra must equal it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import permutations
from typing import TypeVar
from uuid import uuid4

import pytest

from schemas.events import ModelSnapshot
from streams.stores.history import DAY_MS, StoreUnreachable
from streams.stores.registry import Change, Keep, ModelRegistry, Registered, announcement_name, registered
from streams.stores.registry_cassandra import PART_BYTES, CassandraRegistry
from streams.stores.registry_memory import MemoryRegistry
from tests.local import cassandra_session

DAY = 20_000
NOW = DAY * DAY_MS + DAY_MS // 2
Scenario = Callable[[ModelRegistry], Awaitable[None]]
Run = Callable[[Scenario], None]
T = TypeVar("T")


def quiet(_: Exception) -> None:
    pass


@pytest.fixture(params=["memory", pytest.param("cassandra", marks=pytest.mark.integration)])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a scenario against an empty registry."""
    usecase = uuid4().hex  # the keyspace is shared, a use case's rows are its own

    @asynccontextmanager
    async def opened() -> AsyncIterator[ModelRegistry]:
        store: ModelRegistry = MemoryRegistry()
        if request.param == "cassandra":
            store = CassandraRegistry(request.getfixturevalue("cassandra_server"), "contract", usecase, quiet)
            await store.start()
        try:
            yield store
        finally:
            await store.close()

    async def scenario_on_store(scenario: Scenario) -> None:
        async with opened() as store:
            await asyncio.wait_for(scenario(store), 60)

    return lambda scenario: asyncio.run(scenario_on_store(scenario))


def snapshot(number: int, recipe: str = "ftrl", created_at: int = NOW, **changes: object) -> ModelSnapshot:
    fields = {
        "model_id": f"{recipe}@{number}",
        "recipe": recipe,
        "feature_set": "00ff",
        "example_offsets": {0: number + 3},
        "examples_learnt": number,
        "created_at": created_at,
        "parent": f"{recipe}@{number - 1}" if number else None,
        "metrics": {"auc": 0.1 + 0.2, "log_loss": 5e-324},
        "state": b"\x00state\xff",
    }
    return ModelSnapshot(**(fields | changes))  # type: ignore[arg-type]


def row(of: ModelSnapshot, record: bytes, keep: Keep = Keep.AN_HOUR) -> Registered:
    (only,) = registered(record, [of], keep)
    return only


def change(changed_at: int, offset: int = 0, model_id: str | None = None) -> Change:
    return Change(changed_at, offset, "champion", "ftrl", model_id, "operator", f"since {offset} — ä", changed_at - 5)


async def every(items: AsyncGenerator[T, None]) -> list[T]:
    return [item async for item in items]


def test_what_was_written_is_read_back_whole(run: Run) -> None:
    """A snapshot has every field by day and by name, floats to the last bit; its record comes back as it was."""
    one, other = snapshot(7), snapshot(0, "trees", metrics={}, example_offsets={})

    async def scenario(store: ModelRegistry) -> None:
        await store.write(b"\xffrecord", [one, other], Keep.LONG)
        assert await every(store.newest(NOW)) == [
            row(other, b"\xffrecord", Keep.LONG),
            row(one, b"\xffrecord", Keep.LONG),
        ]
        (named,) = await store.named("ftrl@7")
        assert named == row(one, b"\xffrecord", Keep.LONG)
        assert await store.record(named.announcement) == b"\xffrecord"
        assert await store.named("ftrl@8") == []
        assert await store.record("0" * 32) is None

    run(scenario)


def test_snapshots_come_newest_first_across_days_and_pages(run: Run) -> None:
    """From the time asked for back, whatever day they are of and however many there are; nothing twice."""
    #  day 19,990 | 10 days of nothing | day 20,000: 600 of them ... NOW | NOW + 1
    old, late = snapshot(1, created_at=NOW - 10 * DAY_MS), snapshot(2, created_at=NOW + 1)
    many = [snapshot(number, created_at=NOW - number // 2) for number in range(600)]

    async def scenario(store: ModelRegistry) -> None:
        await store.write(b"old", [old], Keep.AN_HOUR)
        await store.write(b"late", [late], Keep.AN_HOUR)
        await store.write(b"many", many, Keep.AN_HOUR)
        found = await every(store.newest(NOW))
        assert [one.created_at for one in found] == [NOW - at // 2 for at in range(600)] + [old.created_at]
        assert {one.model_id for one in found} == {one.model_id for one in many}
        assert (await every(store.newest(NOW + 1)))[0].model_id == late.model_id
        assert await every(store.newest(NOW - 11 * DAY_MS)) == []

    run(scenario)


def test_a_name_may_come_again(run: Run) -> None:
    """Snapshots of one name are all there, newest first: learning that begins anew gives it again."""
    first, again = snapshot(7), snapshot(7, created_at=NOW + 5, feature_set="aaaa")

    async def scenario(store: ModelRegistry) -> None:
        await store.write(b"again", [again], Keep.AN_HOUR)
        await store.write(b"first", [first], Keep.AN_HOUR)
        assert await store.named("ftrl@7") == [row(again, b"again"), row(first, b"first")]

    run(scenario)


@pytest.mark.parametrize("order", list(permutations(Keep)))
def test_the_longest_time_counts(run: Run, order: tuple[Keep, ...]) -> None:
    """A record that is written again, as after a crash before the commit, is one record, kept for the longest time."""

    async def scenario(store: ModelRegistry) -> None:
        for keep in order:
            await store.write(b"record", [snapshot(7)], keep)
        assert await every(store.newest(NOW)) == [row(snapshot(7), b"record", Keep.LONG)]
        assert await store.named("ftrl@7") == [row(snapshot(7), b"record", Keep.LONG)]

    run(scenario)


@pytest.mark.parametrize("size", [PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 16 << 20])
def test_large_records_come_back_whole(run: Run, size: int) -> None:
    """Announcements of any size that the topic takes, as a forest's, are the same to the last byte."""
    record = (b"0123456789abcde" * (size // 15 + 1))[:size]

    async def scenario(store: ModelRegistry) -> None:
        await store.write(record, [snapshot(1)], Keep.AN_HOUR)
        assert await store.record(announcement_name(record)) == record

    run(scenario)


def test_alias_changes_are_a_history(run: Run) -> None:
    """Who, when and why, newest first across years and pages; written again they are the same."""
    year = 366 * DAY_MS
    given = [change(NOW - 3 * year), *(change(NOW - 1 + at // 600, at, f"ftrl@{at}") for at in range(1200))]

    async def scenario(store: ModelRegistry) -> None:
        for one in [*given, *given[:3], change(NOW + 1, 1200)]:
            await store.write_change(one)
        assert await every(store.changes(NOW)) == given[::-1]

    run(scenario)


def test_records_expire(cassandra_server: str) -> None:
    """In Cassandra a record has the time to live that was said, the longest of several."""
    usecase = uuid4().hex
    given = {b"hour": [Keep.AN_HOUR], b"days": [Keep.TWO_DAYS, Keep.AN_HOUR], b"long": [Keep.LONG, Keep.TWO_DAYS]}

    async def scenario() -> None:
        store = CassandraRegistry(cassandra_server, "contract", usecase, quiet)
        await store.start()
        for record, times in given.items():
            for keep in times:
                await store.write(record, [snapshot(1)], keep)
        await store.close()

    asyncio.run(asyncio.wait_for(scenario(), 60))
    select = "SELECT ttl(record) FROM contract.model_announcements WHERE usecase = %s AND announcement = %s"
    with cassandra_session(cassandra_server) as session:
        left = {record: session.execute(select, (usecase, announcement_name(record))).one()[0] for record in given}
    for record, (longest, *_) in given.items():
        assert longest.value - 60 <= left[record] <= longest.value


def test_a_registry_out_of_reach_is_one_line() -> None:
    """Connecting to nothing says where nothing was, in one line."""
    with pytest.raises(StoreUnreachable, match=r"127\.0\.0\.1:1: ") as raised:
        asyncio.run(CassandraRegistry("127.0.0.1:1", "contract", "fraud", quiet).start())
    assert "\n" not in str(raised.value)
