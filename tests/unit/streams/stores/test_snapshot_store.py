"""Snapshots elsewhere: exact at every moment, and enough to go on from when Redis and Kafka have lost the beginning."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.agents.stage import StageAgent
from streams.features.table import StateRefused
from streams.stores import snapshot_store
from streams.stores.entity_snapshots import MemoryEntitySnapshots
from streams.stores.memory import Kept, MemoryStateStore
from streams.stores.snapshot_store import SnapshotStore
from streams.stores.state import Checkpoint, Fenced, SnapshotsUnavailable, States, StoreUnavailable
from tests.unit.streams.agents import test_stage as base
from tests.unit.streams.agents.test_stage import STAGES, Payment, check, run
from tests.unit.streams.world import Message, World

# Several customer partitions reach a terminal in any order, so here each customer has its terminal.
PAYMENTS = [replace(payment, terminal=f"t{payment.customer}") for payment in base.PAYMENTS]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_store, "PAUSE", 0)
    monkeypatch.setattr(snapshot_store, "PAGE", 2)


class Died(Exception):
    """The process that was writing did."""


class MortalSnapshots(MemoryEntitySnapshots):
    """Does not answer while `away`; whoever writes dies after `until` calls, having called `on_write` before each."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.until: int | None = None
        self.on_write: Callable[[], Awaitable[None]] | None = None

    async def header(self, partition: str) -> Checkpoint | None:
        if self.away:
            raise SnapshotsUnavailable("away")
        return await super().header(partition)

    async def write(self, partition: str, position: int, states: States) -> None:
        if self.on_write:
            await self.on_write()
        self._live_on()
        await super().write(partition, position, states)

    async def conclude(self, partition: str, header: Checkpoint) -> None:
        self._live_on()
        await super().conclude(partition, header)

    async def prune(self, partition: str, position: int, entities: Sequence[bytes]) -> None:
        self._live_on()
        await super().prune(partition, position, entities)

    def _live_on(self) -> None:
        if self.until is not None:
            if not self.until:
                raise Died
            self.until -= 1


class Scene:
    """Both stages over a store with snapshots; payments come in parts, and Kafka forgets what is archived."""

    def __init__(self, partitions: int, begin: int = 0) -> None:
        self.redis, self.snapshots = MemoryStateStore(), MortalSnapshots()

        async def begins(_: str) -> int:
            return begin

        self.progress = list[None]()
        self.store = SnapshotStore(self.redis, self.snapshots, begins, lambda: self.progress.append(None))
        self.world = World(partitions, self.store)

    @classmethod
    async def started(cls, partitions: int, begin: int = 0) -> "Scene":
        scene = cls(partitions, begin)
        await scene.start()
        return scene

    def pay(self, payments: list[Payment]) -> None:
        for payment in payments:
            self.world.event(payment.fields)

    async def start(self) -> None:
        for stage in STAGES:
            await self.world.start(stage)

    async def archive(self) -> int:
        """Archive every partition, and return how many states were written."""
        agents = self.world.agents.values()
        return sum([await self.store.archive(name) or 0 for agent in agents for name in names(agent)])

    def forget(self) -> None:
        """Let Kafka's retention take every record there is by now: whoever reads one finds poison."""
        for topic in (self.world.topics.events, *self.world.topics.hops):
            for partition in range(self.world.partitions):
                log = self.world.broker.logs[topic.name, partition]
                log[:] = [Message(b"gone", b"gone")] * len(log)

    async def forget_archived(self) -> None:
        """Let Kafka's retention take what no snapshot needs any more."""
        for stage, topic in zip(STAGES, (self.world.topics.events, *self.world.topics.hops), strict=True):
            (name,) = names(self.world.agents[stage])
            if header := await self.snapshots.header(name):
                self.world.broker.logs[topic.name, 0][: header.offset] = [Message(b"gone", b"gone")] * header.offset

    def wipe(self) -> None:
        self.redis.kept.clear()

    async def paid(self, payments: list[Payment]) -> None:
        """Pay, and wait until all has been worked on."""
        self.pay(payments)
        await self.finish()

    async def go_on(self) -> None:
        """Have new owners take over, and wait until all has been worked on."""
        await self.start()
        await self.finish()

    async def finish(self) -> None:
        await self.world.finish()
        assert self.world.broker.all(self.world.topics.dlq.name) == []


def names(agent: StageAgent) -> list[str]:
    return [owned.name for owned in agent.owned.values()]


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("rounds", [1, 2, 4])
def test_a_partition_that_only_the_snapshot_knows_goes_on_from_it(partitions: int, rounds: int) -> None:
    """Redis is wiped and Kafka's retention was too short: with the snapshot every feature is exact."""

    async def scenario() -> None:
        scene = await Scene.started(partitions)
        for part in range(rounds):
            await scene.paid(PAYMENTS[8 * part // rounds : 8 * (part + 1) // rounds])
            assert await scene.archive() > 0
            assert await scene.archive() == 0
        scene.forget()
        scene.wipe()
        scene.pay(PAYMENTS[8:])
        await scene.go_on()
        await check(scene.world, PAYMENTS)

    run(scenario)


def test_what_came_after_the_snapshot_comes_from_kafka() -> None:
    """The rows that are sent again are dropped where they have been seen."""

    async def scenario() -> None:
        scene = await Scene.started(1)
        await scene.paid(PAYMENTS[:5])
        await scene.archive()
        scene.forget()
        await scene.paid(PAYMENTS[5:9])
        scene.wipe()
        scene.pay(PAYMENTS[9:])
        await scene.go_on()
        await check(scene.world, PAYMENTS)

    run(scenario)


def test_a_round_takes_only_what_has_changed() -> None:
    """One entity of each stage has an event: one state of each is written."""

    async def scenario() -> None:
        scene = await Scene.started(1)
        await scene.paid(PAYMENTS[:9])
        assert await scene.archive() == 6
        await scene.paid(PAYMENTS[9:10])
        assert await scene.archive() == 2
        versions = [len(rows) for states in scene.snapshots.states.values() for rows in states.values()]
        assert versions == [1] * 6  # what they replace has been deleted

    run(scenario)


def test_a_new_owner_archives_what_the_former_had_not() -> None:
    """It has none of these entities in memory: the store knows which they are."""

    async def scenario() -> None:
        scene = await Scene.started(1)
        await scene.paid(PAYMENTS[:4])
        await scene.archive()
        await scene.paid(PAYMENTS[4:8])
        await scene.start()
        await scene.paid(PAYMENTS[8:9])
        assert await scene.archive() == 6
        scene.forget()
        scene.wipe()
        scene.pay(PAYMENTS[9:])
        await scene.go_on()
        await check(scene.world, PAYMENTS)

    run(scenario)


@pytest.mark.parametrize("writes", [1, 2, 3, 4])
def test_a_round_that_breaks_off_changes_nothing(writes: int) -> None:
    """A worker dies between any two writes: the last header stands, and the next round has what this one had."""

    async def scenario() -> None:
        scene = await Scene.started(1)
        await scene.paid(PAYMENTS[:4])
        await scene.archive()
        scene.forget()
        await scene.paid(PAYMENTS[4:8])
        scene.snapshots.until = writes - 1
        with pytest.raises(Died):
            await scene.archive()
        scene.snapshots.until = None
        kept = dict(scene.redis.kept)
        scene.wipe()
        await scene.start()
        await scene.paid(PAYMENTS[8:])
        await check(scene.world, PAYMENTS)
        scene.redis.kept = kept  # the other future: only the worker had died
        await scene.go_on()
        await scene.archive()
        scene.forget()
        scene.wipe()
        await scene.go_on()
        await check(scene.world, PAYMENTS)

    run(scenario)


def test_saves_go_on_while_a_round_is_made() -> None:
    """What they change is in the snapshot as of one of them: neither before nor after it."""

    async def scenario() -> None:
        scene = await Scene.started(1)
        await scene.paid(PAYMENTS[:6])
        coming = iter(PAYMENTS[6:10])

        async def another() -> None:
            await scene.paid([payment] if (payment := next(coming, None)) else [])

        scene.snapshots.on_write = another
        customer, terminal = [name for agent in scene.world.agents.values() for name in names(agent)]
        await scene.store.archive(customer)
        header = await scene.snapshots.header(customer)
        assert header
        assert 6 < header.position < 10
        await scene.store.archive(terminal)
        scene.pay([*coming, *PAYMENTS[10:]])
        log = scene.world.broker.logs[scene.world.topics.events.name, 0]
        log[: header.position] = [Message(b"gone", b"gone")] * header.position
        scene.wipe()
        await scene.go_on()
        await check(scene.world, PAYMENTS)

    run(scenario)


@pytest.mark.parametrize("writes", range(1, 7))
def test_a_round_may_end_anywhere_while_saves_go_on(writes: int) -> None:
    """Killed after any of its writes, Redis lost with it: whatever header stands, its rows are all there."""

    async def scenario() -> None:
        scene = await Scene.started(1)
        await scene.paid(PAYMENTS[:4])
        await scene.archive()
        await scene.paid(PAYMENTS[4:7])
        coming = iter(PAYMENTS[7:])

        async def another() -> None:
            await scene.paid([payment] if (payment := next(coming, None)) else [])

        scene.snapshots.on_write, scene.snapshots.until = another, writes
        with suppress(Died):
            await scene.archive()
        scene.snapshots.on_write, scene.snapshots.until = None, None
        await scene.forget_archived()
        scene.wipe()
        scene.pay(list(coming))
        await scene.go_on()
        await check(scene.world, PAYMENTS)

    run(scenario)


def test_a_former_owner_archives_nothing() -> None:
    """What the store has is another's by now: its states belong to positions that this owner does not know."""

    async def scenario() -> None:
        scene = await Scene.started(1)
        await scene.paid(PAYMENTS[:4])
        (name,) = names(scene.world.agents[0])
        await scene.redis.claim(name)
        with pytest.raises(Fenced):
            await scene.store.archive(name)
        assert await scene.snapshots.header(name) is None

    run(scenario)


def test_a_former_owner_deletes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is still pruning when another has begun a round is told so before it takes the other's for its own."""
    monkeypatch.setattr(snapshot_store, "_sound", lambda _: True)

    async def scenario() -> None:
        scene = Scene(1)
        claim = await scene.store.claim("p")
        await scene.store.save("p", claim.epoch, Checkpoint(1, b"", 1), [(b"quiet", b"state"), (b"busy", b"state")])
        await scene.store.archive("p")
        await scene.store.save("p", claim.epoch, Checkpoint(2, b"", 2), [(b"busy", b"state")])
        concluded = scene.snapshots.conclude

        async def then_another_takes_over(partition: str, header: Checkpoint) -> None:
            await concluded(partition, header)
            epoch = (await scene.redis.claim(partition)).epoch
            await scene.redis.save(partition, epoch, Checkpoint(3, b"", 3), [(b"quiet", b"state")])
            await scene.redis.begin_round(partition, epoch)  # of which nothing is written yet

        scene.snapshots.conclude = then_another_takes_over  # type: ignore[method-assign]
        with pytest.raises(Fenced):
            await scene.store.archive("p")
        assert list(scene.snapshots.states["p"][b"quiet"]) == [1]

    run(scenario)


def test_a_save_in_doubt_is_waited_out() -> None:
    """It may have been kept or not, so of what position the states are cannot be said; the next save tells."""

    class Doubtful(MemoryStateStore):
        failing = False

        async def save(self, *args: object) -> None:
            await super().save(*args)  # type: ignore[arg-type]
            if self.failing:
                raise StoreUnavailable("no answer")

    async def scenario() -> None:
        scene = Scene(1)
        store = Doubtful()
        scene.store._store = store
        claim = await scene.store.claim("p")
        await scene.store.save("p", claim.epoch, Checkpoint(1, b"", 1), [])
        store.failing = True
        with pytest.raises(StoreUnavailable):
            await scene.store.save("p", claim.epoch, Checkpoint(2, b"", 2), [])
        assert await scene.store.archive("p") is None
        store.failing = False
        await scene.store.save("p", claim.epoch, Checkpoint(3, b"", 3), [])
        assert await scene.store.archive("p") == 0
        assert await scene.snapshots.header("p") == Checkpoint(3, b"", 3)

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_a_damaged_state_is_not_archived() -> None:
    """It is set aside, its partition with it, and the snapshot of before is what it is rebuilt from."""

    async def scenario() -> None:
        scene = await Scene.started(1)
        await scene.paid(PAYMENTS[:8])
        await scene.archive()
        scene.forget()
        await scene.paid(PAYMENTS[8:])
        (name,) = names(scene.world.agents[0])
        kept = scene.redis.kept[name]
        scene.redis.kept[name] = replace(kept, states={key: b"?" + state[1:] for key, state in kept.states.items()})
        with pytest.raises(StateRefused, match=f"{name}: .*damaged.* it is kept as .*:refused:"):
            await scene.store.archive(name)
        await scene.go_on()
        await check(scene.world, PAYMENTS)

    run(scenario)


@pytest.mark.parametrize("what", ["a row", "the header"])
def test_a_damaged_snapshot_is_not_used(what: str) -> None:
    """Nothing of it counts; the partition begins anew, with what Kafka has."""

    async def scenario() -> None:
        scene = await Scene.started(1)
        await scene.paid(PAYMENTS[:8])
        await scene.archive()
        for name in scene.snapshots.records:
            if what == "a row":
                rows = scene.snapshots.states[name][max(scene.snapshots.states[name])]
                rows[max(rows)] = b"?" + rows[max(rows)][1:]
            else:
                scene.snapshots.records[name] = (8, b"?" + scene.snapshots.records[name][1][1:])
        scene.wipe()
        await scene.start()
        assert set(scene.world.positions.values()) == {0}
        await scene.paid(PAYMENTS[8:])
        await check(scene.world, PAYMENTS)
        aside = [name for name in scene.snapshots.states if name.endswith(":refused")]
        assert len(aside) == (2 if what == "a row" else 0)
        await scene.archive()
        scene.forget()
        scene.wipe()
        await scene.start()  # from the snapshot, which is sound again
        await scene.finish()
        await check(scene.world, PAYMENTS)

    run(scenario)


def test_snapshots_that_cannot_be_asked_hold_up_only_what_needs_them() -> None:
    """Kafka has the whole log: rebuilt from there. It has not: they are waited for."""

    async def scenario() -> None:
        for begin in (0, 5):
            scene = Scene(1, begin)
            scene.snapshots.away = True
            if not begin:
                assert (await scene.store.claim("p")).checkpoint is None
            else:
                with pytest.raises(SnapshotsUnavailable):
                    await scene.store.claim("p")

    run(scenario)


def test_a_gap_that_nothing_fills_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Neither Redis nor Cassandra has the partition, and Kafka only its end: one warning names where that begins."""

    async def scenario() -> None:
        assert (await Scene(1, begin=5).store.claim("p")).checkpoint is None
        assert [record.getMessage() for record in caplog.records if "offset 5 on" in record.getMessage()]
        caplog.clear()
        assert (await Scene(1).store.claim("p")).checkpoint is None
        assert not caplog.records

    run(scenario)


def test_a_snapshot_that_is_replaced_while_it_is_read_is_read_again() -> None:
    """A former owner concludes a newer one and deletes what the older needs: no mixture is restored."""

    async def scenario() -> None:
        scene = await Scene.started(1)
        await scene.paid(PAYMENTS[:6])
        await scene.archive()
        older = {name: dict(states) for name, states in scene.snapshots.states.items()}
        records = dict(scene.snapshots.records)
        await scene.paid(PAYMENTS[6:8])
        await scene.archive()
        newer, scene.snapshots.records = scene.snapshots.records, records
        rows = scene.snapshots.rows
        reads = list[int]()

        def concluded_meanwhile(partition: str, position: int):  # type: ignore[no-untyped-def]
            reads.append(position)
            scene.snapshots.records = newer
            return rows(partition, position)

        scene.snapshots.rows = concluded_meanwhile  # type: ignore[method-assign]
        assert older != scene.snapshots.states
        scene.forget()
        scene.wipe()
        scene.pay(PAYMENTS[8:])
        await scene.start()
        assert reads == [6, 8, 8]
        await scene.finish()
        await check(scene.world, PAYMENTS)

    run(scenario)


# Whatever happens.

ACTIONS = st.one_of(
    st.tuples(st.just("pay"), st.integers(1, 3)),
    st.tuples(st.just("work"), st.integers(1, 4)),
    st.tuples(st.sampled_from(["archive", "archive while events come"]), st.integers(0, 9)),
    st.tuples(st.sampled_from(["replace", "remember", "restore", "lose"]), st.just(0)),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ACTIONS, max_size=25))
def test_whatever_happens_nothing_shows_it(actions: list[tuple[str, int]]) -> None:
    """Workers replaced, rounds broken off, Redis set back or lost with all that Kafka had before the snapshots: the
    scores and states are the backtest's."""

    async def scenario() -> None:
        scene = Scene(1)
        coming, older = iter(PAYMENTS), dict[str, Kept]()
        await scene.start()

        async def work(number: int) -> None:
            for stage in STAGES:
                await scene.world.step(stage, 0, number)
                await scene.world.checkpoint(stage)

        async def more() -> None:
            scene.pay(list(islice(coming, 1)))
            await work(2)

        for what, number in actions:
            match what:
                case "pay":
                    scene.pay(list(islice(coming, number)))
                case "work":
                    await work(number)
                case "archive" | "archive while events come":
                    scene.snapshots.until = number or None
                    scene.snapshots.on_write = more if "while" in what else None
                    with suppress(Died):
                        await scene.archive()
                    scene.snapshots.until = scene.snapshots.on_write = None
                case "replace":
                    await scene.start()
                case "remember":
                    older = dict(scene.redis.kept)
                case "restore":
                    scene.redis.kept = dict(older)
                    await scene.start()
                case "lose":
                    await scene.forget_archived()
                    scene.wipe()
                    older = {}  # older than what Kafka has
                    await scene.start()
        await scene.paid(list(coming))
        await check(scene.world, PAYMENTS)

    run(scenario)
