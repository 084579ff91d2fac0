"""What every history store does; memory is the reference, Cassandra must equal it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from infra.cassandra import schema
from schemas.codec import encode
from schemas.events import Label, Score
from streams.stores.cassandra import CassandraHistory
from streams.stores.history import DAY_MS, EntityScore, HistoryStore, KeptLabel, Scored, StoreUnreachable
from streams.stores.memory_history import MemoryHistory
from tests.engines import Engine
from tests.local import cassandra_session

DAY = 20_000
Scenario = Callable[[HistoryStore], Awaitable[None]]
Run = Callable[[Scenario], None]


@pytest.fixture(scope="module")
def cassandra(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with engine.cassandra(tmp_path_factory.mktemp("cassandra")) as server:
        yield server.address


async def started(address: str, usecase: str) -> CassandraHistory:
    store = CassandraHistory(address, "contract", usecase)
    await store.start()
    return store


@pytest.fixture(params=["memory", pytest.param("cassandra", marks=pytest.mark.integration)])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a scenario against an empty store."""
    usecase = uuid4().hex  # the keyspace is shared, a use case's rows are its own

    @asynccontextmanager
    async def opened() -> AsyncIterator[HistoryStore]:
        store: HistoryStore = MemoryHistory()
        if request.param == "cassandra":
            store = await started(request.getfixturevalue("cassandra"), usecase)
        try:
            yield store
        finally:
            await store.close()

    async def scenario_on_store(scenario: Scenario) -> None:
        async with opened() as store:
            await asyncio.wait_for(scenario(store), 60)

    return lambda scenario: asyncio.run(scenario_on_store(scenario))


def scored(event_id: str = "e", offset: int = 0, **changes: object) -> Scored:
    fields = {
        "event_time": DAY * DAY_MS + 1,
        "entities": {"customer": "c1", "terminal": "t1"},
        "features": {"amount": 12.5, "tx_count": 3.0},
        "score": 0.25,
        "decision": "accept",
        "model_id": "logistic@7",
        "feature_set": "00ff",
        "received_at": 1_760_000_000_000,
        "scored_at": 1_760_000_000_005,
    }
    score = Score(event_id, **(fields | changes))  # type: ignore[arg-type]
    return Scored(score, encode(score), offset)


def line(of: Scored) -> EntityScore:
    score = of.score
    return EntityScore(score.event_id, score.event_time, score.score, score.decision, score.model_id)


def test_a_written_score_is_read_back_whole(run: Run) -> None:
    """A score comes back equal in every field, features to the last bit, and unknown ids are left out."""
    one = scored("e-ä\u20ac", features={"amount": 0.1 + 0.2, "tiny": 5e-324, "minus": -1e300})

    async def scenario(store: HistoryStore) -> None:
        await store.write_scores([one])
        assert await store.scores([one.score.event_id, "unknown"]) == {one.score.event_id: one.score}
        assert await store.scores([]) == {}

    run(scenario)


def test_writing_again_changes_nothing(run: Run) -> None:
    """A batch that is written twice, as after a crash before the commit, leaves one row an event."""
    batch = [scored(f"e{i}", offset=i) for i in range(20)]

    async def scenario(store: HistoryStore) -> None:
        await store.write_scores(batch)
        await store.write_scores(batch)
        assert await store.scores([f"e{i}" for i in range(20)]) == {s.score.event_id: s.score for s in batch}
        assert len(await store.entity_day("customer", "c1", DAY)) == 20

    run(scenario)


@pytest.mark.parametrize("later_first", [False, True])
@pytest.mark.parametrize("together", [False, True])
def test_of_two_scores_the_later_stays_whole(run: Run, later_first: bool, together: bool) -> None:
    """Whatever order two scores of one event are written in, the one made last stays, and nothing of the other."""
    earlier = scored(offset=1, score=0.9, decision="decline", model_id="zzz@9", features={"a": 9.0})
    later = scored(offset=2, score=0.1, decision="accept", model_id="aaa@1", scored_at=1_760_000_000_006)
    order = [later, earlier] if later_first else [earlier, later]

    async def scenario(store: HistoryStore) -> None:
        for batch in [order] if together else [[one] for one in order]:
            await store.write_scores(batch)
        assert await store.scores(["e"]) == {"e": later.score}
        for entity, id_ in later.score.entities.items():
            assert await store.entity_day(entity, id_, DAY) == [line(later)]

    run(scenario)


def test_scores_of_the_same_millisecond_are_not_mixed(run: Run) -> None:
    """Two scores of one event made in the same millisecond leave one of them, the same one in every table."""
    batch = [
        scored(offset=41, score=0.9, decision="accept", model_id="aaa@1"),
        scored(offset=42, score=0.1, decision="decline", model_id="zzz@1"),
    ]

    async def scenario(store: HistoryStore) -> None:
        for one in reversed(batch):
            await store.write_scores([one])
        assert await store.scores(["e"]) == {"e": batch[1].score}
        assert await store.entity_day("terminal", "t1", DAY) == [line(batch[1])]

    run(scenario)


def test_a_day_of_an_entity_is_in_order_and_its_own(run: Run) -> None:
    """An entity's day has that day's events (UTC) and no other entity's, the newest first, as many as asked."""
    #        day 19999 | day 20000 (DAY)             | day 20001
    #                a | b  c (same time)          d | e
    start = DAY * DAY_MS
    times = {"a": start - 1, "b": start, "c": start, "d": start + DAY_MS - 1, "e": start + DAY_MS}
    events = {event_id: scored(event_id, event_time=time) for event_id, time in times.items()}
    other = scored("x", entities={"customer": "c2", "terminal": "c1"})

    async def scenario(store: HistoryStore) -> None:
        await store.write_scores([*events.values(), other])
        expected = [line(events[event_id]) for event_id in "dbc"]
        assert await store.entity_day("customer", "c1", DAY) == expected
        assert await store.entity_day("customer", "c1", DAY, limit=2) == expected[:2]
        assert await store.entity_day("customer", "c1", DAY + 1) == [line(events["e"])]
        assert await store.entity_day("customer", "nobody", DAY) == []

    run(scenario)


@pytest.mark.parametrize("said", [1_760_000_000_000, 1_760_000_000], ids=["ms", "seconds"])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 3, 0, 1)])
def test_the_label_known_last_stays(run: Run, order: tuple[int, ...], said: int) -> None:
    """Whatever order labels come in, the one that became known last stays, with its place; at the same time the
    positive one; what was said over what was assumed, whenever that was, or is said to have been."""
    labels = [
        KeptLabel(Label("e", said + 5, 1), 0, 1 << 40),
        KeptLabel(Label("e", 1_760_000_000_099, 0, assumed=True), 3, 6, 0.0),
        KeptLabel(Label("e", said + 9, 0), 1, 7),
        KeptLabel(Label("e", said + 9, 1), 32_767, 8, 1 / 0.3),
    ]

    async def scenario(store: HistoryStore) -> None:
        for i in order:
            await store.write_labels([labels[i], labels[i]._replace(label=Label(f"other-{i}", 1, 0, assumed=i == 1))])
        assert await store.labels(["e", "unknown"]) == {"e": labels[3]}
        others = await store.labels([f"other-{i}" for i in range(4)])
        assert others["other-1"] == KeptLabel(Label("other-1", 1, 0, assumed=True), 3, 6, 0.0)
        assert len(others) == 4

    run(scenario)


def test_many_and_large_rows_in_one_call(run: Run) -> None:
    """One call takes thousands of rows, and rows larger than a whole batch."""
    large = scored("large", features={f"feature-{i}": i / 7 for i in range(1500)})
    many = [scored(f"e{i}", offset=i, event_time=DAY * DAY_MS + i) for i in range(3000)]
    many.insert(100, large)

    async def scenario(store: HistoryStore) -> None:
        await store.write_scores(many)
        ids = [one.score.event_id for one in many]
        assert await store.scores([*ids, *ids]) == {one.score.event_id: one.score for one in many}
        assert len(await store.entity_day("customer", "c1", DAY, limit=10_000)) == len(many)

    run(scenario)


@pytest.mark.integration
def test_use_cases_do_not_meet(cassandra: str) -> None:
    """Two use cases with the same event id keep a row each."""

    async def scenario() -> None:
        fraud = await started(cassandra, f"fraud-{uuid4().hex}")
        ctr = await started(cassandra, f"ctr-{uuid4().hex}")
        try:
            await fraud.write_scores([scored()])
            assert await ctr.scores(["e"]) == {}
        finally:
            await fraud.close()
            await ctr.close()

    asyncio.run(asyncio.wait_for(scenario(), 60))


@pytest.mark.integration
def test_labels_from_before_they_had_places_are_read(cassandra: str) -> None:
    """A table of the first version gets its new columns; what it holds was said by somebody, and was learnt."""
    columns = "usecase text, event_id text, label_time timestamp, label tinyint, PRIMARY KEY ((usecase, event_id))"
    with cassandra_session(cassandra) as session:
        session.execute(schema("older")[0])
        session.execute(f"CREATE TABLE older.labels ({columns})")
        session.execute("INSERT INTO older.labels (usecase, event_id, label_time, label) VALUES ('fraud', 'e', 5, 1)")

    async def scenario() -> None:
        for _ in range(2):  # at any time
            store = CassandraHistory(cassandra, "older", "fraud")
            await store.start()
            try:
                assert await store.labels(["e"]) == {"e": KeptLabel(Label("e", 5, 1), None, None)}
            finally:
                await store.close()

    asyncio.run(asyncio.wait_for(scenario(), 60))


@pytest.mark.integration
def test_a_schema_of_another_make_is_one_line(cassandra: str) -> None:
    """Where a table of ours exists with other columns, the start says which is missing, in one line."""
    with cassandra_session(cassandra) as session:
        session.execute(schema("other")[0])
        session.execute("CREATE TABLE other.labels (usecase text PRIMARY KEY)")
    with pytest.raises(StoreUnreachable, match="event_id") as raised:
        asyncio.run(CassandraHistory(cassandra, "other", "fraud").start())
    assert "\n" not in str(raised.value)


def test_a_store_out_of_reach_is_one_line() -> None:
    """Connecting to nothing says where nothing was, in one line."""
    with pytest.raises(StoreUnreachable, match=r"127\.0\.0\.1:1: ") as raised:
        asyncio.run(CassandraHistory("127.0.0.1:1", "contract", "fraud").start())
    assert "\n" not in str(raised.value)
