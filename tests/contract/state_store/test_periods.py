"""States live for a TTL after they were saved last, though fields of a hash have none: periods of the TTL's length."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from redis import Redis

from streams.stores.redis import SLACK_SECONDS, RedisStateStore
from streams.stores.state import Checkpoint
from tests.contract.state_store.network import SlowNetwork
from tests.contract.state_store.shared import IDS, TTL_MS, as_worker
from tests.local import states_of

TTL = TTL_MS / 1000 + SLACK_SECONDS


class Clock:
    """A clock that is turned by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


Scenario = Callable[[RedisStateStore, Clock, str, int], Awaitable[None]]


def play(url: str, scenario: Scenario) -> None:
    """Run a scenario with a store whose clock stands, a partition of its own and the epoch of its claim."""

    async def claimed() -> None:
        clock, partition = Clock(), f"fraud.customer.{uuid4().hex}.0"
        store = RedisStateStore(as_worker(url), TTL_MS, clock)
        try:
            await asyncio.wait_for(scenario(store, clock, partition, (await store.claim(partition)).epoch), 20)
        finally:
            await store.close()

    asyncio.run(claimed())


def hashes(url: str, partition: str) -> list[set[bytes]]:
    """Return which entities each hash of a partition has, those of the last period last."""
    with Redis.from_url(url) as redis:
        keys = states_of(redis, f"{{{partition}}}:checkpoint".encode())
        return [set(redis.hkeys(key)) for key in keys]


def periods(url: str, partition: str) -> int:
    """Return how many periods a partition's states are of."""
    with Redis.from_url(url) as redis:
        return len({key.split(b":")[-2] for key in states_of(redis, f"{{{partition}}}:checkpoint".encode())})


def test_a_state_outlives_the_ttl_and_not_two(valkey_server: str) -> None:
    """One that is saved again moves into the present period; one that is not is found for one period more."""

    # period  |----1----|----2----|----3----
    # saved    a, b      a         c
    # found    a, b      a, b      a, c

    async def scenario(store: RedisStateStore, clock: Clock, partition: str, epoch: int) -> None:
        async def found() -> list[bytes | None]:
            return await store.load(partition, epoch, [b"a", b"b", b"c"])

        await store.save(partition, epoch, Checkpoint(1, b""), [(b"a", b"1"), (b"b", b"1")])
        assert await found() == [b"1", b"1", None]
        clock.now += TTL
        await store.save(partition, epoch, Checkpoint(2, b""), [(b"a", b"2")])
        assert await found() == [b"2", b"1", None]
        assert hashes(valkey_server, partition) == [{b"b"}, {b"a"}]
        clock.now += TTL
        await store.save(partition, epoch, Checkpoint(3, b""), [(b"c", b"3")])
        assert await found() == await store.read(partition, [b"a", b"b", b"c"]) == [b"2", None, b"3"]

    play(valkey_server, scenario)


def test_a_period_outlasts_the_ttl_by_what_may_be_wrong_about_the_time(valkey_server: str) -> None:
    """Redis's clock is known to the second, and as late as its answer came: none ends before a TTL is over."""

    async def scenario(store: RedisStateStore, clock: Clock, partition: str, epoch: int) -> None:
        await store.save(partition, epoch, Checkpoint(1, b""), [(b"a", b"1")])
        clock.now += TTL_MS / 1000 + SLACK_SECONDS / 2
        await store.save(partition, epoch, Checkpoint(2, b""), [(b"b", b"2")])
        assert periods(valkey_server, partition) == 1
        clock.now += SLACK_SECONDS
        await store.save(partition, epoch, Checkpoint(3, b""), [(b"c", b"3")])
        assert periods(valkey_server, partition) == 2

    play(valkey_server, scenario)


def test_who_looks_while_a_period_begins_sees_a_state_where_it_is_then(valkey_server: str) -> None:
    """Between being told the period and looking, a state may have moved to the next."""

    async def scenario(store: RedisStateStore, clock: Clock, partition: str, epoch: int) -> None:
        network = SlowNetwork(valkey_server, keep=(b":states:",))
        reader = RedisStateStore(await network.start(), TTL_MS)
        await store.save(partition, epoch, Checkpoint(1, b""), [(b"a", b"1")])
        assert await store.read(partition, [b"a"]) == [b"1"]
        clock.now += TTL
        reading = asyncio.create_task(reader.read(partition, [b"a"]))
        await network.holding()
        await store.save(partition, epoch, Checkpoint(2, b""), [(b"a", b"2")])
        await network.deliver()
        assert await reading == [b"2"]
        await reader.close()

    play(valkey_server, scenario)


def test_an_unfit_state_of_the_period_before_is_set_aside(valkey_server: str) -> None:
    """It is where it was found."""

    async def scenario(store: RedisStateStore, clock: Clock, partition: str, epoch: int) -> None:
        await store.save(partition, epoch, Checkpoint(1, b""), [(b"a", b"bad")])
        clock.now += TTL
        await store.save(partition, epoch, Checkpoint(2, b""), [(b"b", b"1")])
        place = await store.set_aside(partition, epoch, b"a")
        with Redis.from_url(valkey_server) as redis:
            assert redis.get(place + ":state") == b"bad"
            assert 0 < redis.pttl(place + ":state") <= TTL_MS

    play(valkey_server, scenario)


def test_periods_go_by_the_clock_of_redis(valkey_server: str) -> None:
    """Workers' clocks may differ by more than a TTL: no state is out of reach for that."""

    async def scenario(store: RedisStateStore, clock: Clock, partition: str, epoch: int) -> None:
        await store.save(partition, epoch, Checkpoint(1, b""), [(b"a", b"1")])
        for entity in (b"b", b"c"):
            clock.now += 7 * TTL
            epoch = (await store.claim(partition)).epoch
            await store.save(partition, epoch, Checkpoint(2, b""), [(entity, b"2")])
        assert await store.load(partition, epoch, [b"a", b"b", b"c"]) == [b"1", b"2", b"2"]

    play(valkey_server, scenario)


def test_a_clock_that_is_behind_begins_no_period(valkey_server: str) -> None:
    """As a replica's may be that takes over."""

    async def scenario(store: RedisStateStore, clock: Clock, partition: str, epoch: int) -> None:
        await store.save(partition, epoch, Checkpoint(1, b""), [(b"a", b"1")])
        clock.now += 2 * TTL
        await store.save(partition, epoch, Checkpoint(2, b""), [(b"b", b"2")])
        epoch = (await store.claim(partition)).epoch
        await store.save(partition, epoch, Checkpoint(3, b""), [(b"c", b"3")])
        assert await store.load(partition, epoch, [b"a", b"b", b"c"]) == [b"1", b"2", b"3"]

    play(valkey_server, scenario)


@pytest.mark.parametrize("factor", [0.01, 100])
def test_another_ttl_loses_nothing(valkey_server: str, factor: float) -> None:
    """The setting for how far ahead events may be is part of it, and may change: the new one holds from then on."""

    async def scenario(store: RedisStateStore, clock: Clock, partition: str, epoch: int) -> None:
        await store.save(partition, epoch, Checkpoint(1, b""), [(b"a", b"1")])
        ttl = TTL_MS * factor
        other = RedisStateStore(valkey_server, int(ttl), clock)
        epoch = (await other.claim(partition)).epoch
        clock.now += ttl / 1000 + SLACK_SECONDS + 1
        await other.save(partition, epoch, Checkpoint(2, b""), [(b"b", b"2")])
        assert await other.load(partition, epoch, [b"a", b"b"]) == [b"1", b"2"]
        assert hashes(valkey_server, partition) == [{b"a"}, {b"b"}]
        await other.close()

    play(valkey_server, scenario)


STEPS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.6, 1.1]), st.booleans(), st.sets(st.sampled_from(IDS))),
    max_size=12,
)
"""Of each save, how many TTLs it is after the one before, whether a new owner makes it, and of which entities."""


@settings(max_examples=30)
@given(STEPS)
@example([(0.0, False, {b"b"}), (0.5, False, {b"a"}), (0.1, False, {b"b"}), (0.6, False, {b"b"})])
def test_what_was_saved_within_a_ttl_is_found_as_it_was(
    valkey_server: str, steps: list[tuple[float, bool, set[bytes]]]
) -> None:
    """Against a dictionary of what was saved last and when; what is older is found as it was or not at all."""

    async def scenario(store: RedisStateStore, clock: Clock, partition: str, epoch: int) -> None:
        last: dict[bytes, tuple[float, bytes]] = {}
        claimed = 0.0  # when, by our clock: Redis's has hardly moved, so time begins anew there
        for number, (later, claims, entities) in enumerate(steps):
            clock.now += later * TTL
            if claims:
                epoch, claimed = (await store.claim(partition)).epoch, clock.now
            saved, now = b"%d" % number, clock.now - claimed
            await store.save(partition, epoch, Checkpoint(number, b""), [(entity, saved) for entity in entities])
            last |= dict.fromkeys(entities, (now, saved))
            loaded = dict(zip(last, await store.load(partition, epoch, list(last)), strict=True))
            for entity, (when, state) in last.items():
                assert loaded[entity] == state or (loaded[entity] is None and now - when > TTL_MS / 1000)
            last = {entity: kept for entity, kept in last.items() if loaded[entity]}

    play(valkey_server, scenario)
