"""A save is a transaction of many commands: what happens between them, and when the last one comes late."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from redis import Redis

from streams.stores import redis_nodes
from streams.stores.redis import RedisStateStore
from streams.stores.redis_keys import BUCKETS
from streams.stores.state import Checkpoint, Fenced, StoreRefused, StoreUnavailable
from tests.contract.state_store.network import EXEC, MULTI, SlowNetwork
from tests.contract.state_store.shared import TTL_MS, as_worker

Scenario = Callable[[RedisStateStore, RedisStateStore, SlowNetwork, str], Awaitable[None]]


def play(scenario: Scenario, url: str, keep: Sequence[bytes] = (EXEC,)) -> None:
    """Run a scenario with a store, another one behind a slow network, and a partition of its own."""

    async def with_both() -> None:
        network = SlowNetwork(url, keep)
        direct, slow = RedisStateStore(url, TTL_MS), RedisStateStore(await network.start(), TTL_MS)
        try:
            await asyncio.wait_for(scenario(direct, slow, network, f"fraud.customer.{uuid4().hex}.0"), 20)
        finally:
            await slow.close()
            await direct.close()

    asyncio.run(with_both())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not answer soon is given up."""
    monkeypatch.setattr(redis_nodes, "SOCKET_SECONDS", 0.3)


@pytest.mark.usefixtures("impatient")
def test_a_save_that_arrives_late_changes_nothing(valkey_server: str) -> None:
    """A save that timed out on its way and arrives after the next one does not bring the old state back."""

    async def scenario(direct: RedisStateStore, slow: RedisStateStore, network: SlowNetwork, partition: str) -> None:
        epoch = (await slow.claim(partition)).epoch
        with pytest.raises(StoreUnavailable):
            await slow.save(partition, epoch, Checkpoint(100, b"old"), [(b"a", b"old")])
        await slow.save(partition, epoch, Checkpoint(200, b"new"), [(b"a", b"new"), (b"b", b"new")])
        await network.deliver()
        assert await direct.read(partition, [b"a", b"b"]) == [b"new", b"new"]
        assert (await direct.claim(partition)).checkpoint == Checkpoint(200, b"new")

    play(scenario, valkey_server)


@pytest.mark.usefixtures("impatient")
def test_a_late_save_does_not_stop_the_next(valkey_server: str) -> None:
    """One that timed out and arrives in the middle of the next: that is sent again, and both count in their order."""

    async def scenario(direct: RedisStateStore, slow: RedisStateStore, network: SlowNetwork, partition: str) -> None:
        epoch = (await slow.claim(partition)).epoch
        with pytest.raises(StoreUnavailable):
            await slow.save(partition, epoch, Checkpoint(100, b"old"), [(b"a", b"old"), (b"c", b"old")])
        following = asyncio.create_task(slow.save(partition, epoch, Checkpoint(200, b"new"), [(b"a", b"new")]))
        await network.holding(2)
        await network.deliver()
        assert await direct.read(partition, [b"a", b"c"]) == [b"old", b"old"]
        await network.deliver()
        await following
        assert await direct.read(partition, [b"a", b"c"]) == [b"new", b"old"]
        assert (await direct.claim(partition)).checkpoint == Checkpoint(200, b"new")

    play(scenario, valkey_server, keep=(EXEC, EXEC))


def test_a_claim_in_the_middle_of_a_save_fences_it(valkey_server: str) -> None:
    """Whoever was the owner when a save began and is not when it ends has nothing kept of it."""

    async def scenario(direct: RedisStateStore, slow: RedisStateStore, network: SlowNetwork, partition: str) -> None:
        epoch = (await slow.claim(partition)).epoch
        saving = asyncio.create_task(slow.save(partition, epoch, Checkpoint(1, b""), [(b"a", b"1")]))
        await network.holding()
        assert (await direct.claim(partition)).checkpoint is None
        await network.deliver()
        with pytest.raises(Fenced, match=f"epoch {epoch} is over"):
            await saving
        assert await direct.read(partition, [b"a"]) == [None]

    play(scenario, valkey_server)


def test_a_save_is_seen_whole(valkey_server: str) -> None:
    """Until its last command a save of many pieces has changed nothing, of states that are there or are not."""
    states = [(b"%d" % number, b"new") for number in range(20 * BUCKETS)]
    entities = [entity for entity, _ in states]

    async def scenario(direct: RedisStateStore, slow: RedisStateStore, network: SlowNetwork, partition: str) -> None:
        epoch = (await slow.claim(partition)).epoch
        saving = asyncio.create_task(slow.save(partition, epoch, Checkpoint(1, b""), states))
        await network.holding()
        assert await direct.read(partition, entities) == [None] * len(states)
        await network.deliver()
        await saving
        assert await direct.read(partition, entities) == [state for _, state in states]

    play(scenario, valkey_server)


@contextmanager
def refusing(url: str, setting: str, value: int) -> Iterator[None]:
    """A Redis with another setting inside the block."""
    with Redis.from_url(url) as redis:
        (usual,) = redis.config_get(setting).values()
        redis.config_set(setting, value)
        try:
            yield
        finally:
            redis.config_set(setting, usual)


REFUSING = pytest.mark.parametrize(("setting", "value"), [("maxmemory", 1), ("min-replicas-to-write", 1)])


@REFUSING
def test_a_redis_that_refuses_the_first_command_is_waited_for(valkey_server: str, setting: str, value: int) -> None:
    """Nothing is kept, and the next save finds nothing half said."""

    async def scenario(direct: RedisStateStore, _: RedisStateStore, __: SlowNetwork, partition: str) -> None:
        epoch = (await direct.claim(partition)).epoch
        with refusing(valkey_server, setting, value), pytest.raises(StoreUnavailable, match="does not serve"):
            await direct.save(partition, epoch, Checkpoint(1, b""), [(b"a", b"1")])
        await direct.save(partition, epoch, Checkpoint(2, b""), [(b"b", b"2")])
        assert await direct.read(partition, [b"a", b"b"]) == [None, b"2"]

    play(scenario, valkey_server)


def test_answers_that_come_late_are_nobodys(valkey_server: str) -> None:
    """Redis answers what else was said after the command it refused; the next save does not take that for its own."""
    states = [(b"%d" % number, b"1") for number in range(20 * BUCKETS)]

    async def scenario(direct: RedisStateStore, slow: RedisStateStore, _: SlowNetwork, partition: str) -> None:
        epoch = (await slow.claim(partition)).epoch
        with refusing(valkey_server, "maxmemory", 1), pytest.raises(StoreUnavailable, match="does not serve"):
            await slow.save(partition, epoch, Checkpoint(1, b""), states)
        await slow.save(partition, epoch, Checkpoint(2, b""), [(b"b", b"2")])
        assert await slow.load(partition, epoch, [b"0", b"b"]) == [None, b"2"]

    play(scenario, valkey_server, keep=())


def test_of_two_saves_at_once_one_counts_whole(valkey_server: str) -> None:
    """Callers have one after the other; else what was acknowledged is there, and the other is fenced or repeated."""
    first, second = ([(b"%d" % number, state) for number in range(200 * BUCKETS)] for state in (b"1", b"2"))

    async def scenario(direct: RedisStateStore, slow: RedisStateStore, network: SlowNetwork, partition: str) -> None:
        epoch = (await slow.claim(partition)).epoch
        saving = asyncio.create_task(slow.save(partition, epoch, Checkpoint(1, b"1"), first))
        await network.holding()
        await slow.save(partition, epoch, Checkpoint(2, b"2"), second)
        await network.deliver()
        with pytest.raises(Fenced, match="lost writes"):
            await saving
        claim = await direct.claim(partition)
        assert (claim.checkpoint, claim.refused) == (Checkpoint(2, b"2"), None)
        assert await direct.load(partition, claim.epoch, [b"0"]) == [b"2"]

    play(scenario, valkey_server)


def test_a_save_that_ends_while_the_next_is_under_way_is_sound(valkey_server: str) -> None:
    """What it says of itself is its own number, not that of the save which was begun last."""

    async def scenario(direct: RedisStateStore, slow: RedisStateStore, network: SlowNetwork, partition: str) -> None:
        epoch = (await slow.claim(partition)).epoch
        first = asyncio.create_task(slow.save(partition, epoch, Checkpoint(1, b""), [(b"a", b"1")]))
        await network.holding()
        second = asyncio.create_task(slow.save(partition, epoch, Checkpoint(2, b""), [(b"b", b"2")]))
        await network.holding(2)
        await network.deliver()
        await first
        assert await direct.read(partition, [b"a", b"b"]) == [b"1", None]
        await network.deliver()
        await second
        assert await direct.read(partition, [b"a", b"b"]) == [b"1", b"2"]
        assert (await direct.claim(partition)).checkpoint == Checkpoint(2, b"")

    play(scenario, valkey_server, keep=(MULTI, EXEC))


@REFUSING
def test_a_redis_that_refuses_the_last_command_is_waited_for(valkey_server: str, setting: str, value: int) -> None:
    """It was well when the save began."""

    async def scenario(direct: RedisStateStore, slow: RedisStateStore, network: SlowNetwork, partition: str) -> None:
        epoch = (await slow.claim(partition)).epoch
        saving = asyncio.create_task(slow.save(partition, epoch, Checkpoint(1, b""), [(b"a", b"1")]))
        await network.holding()
        with refusing(valkey_server, setting, value):
            await network.deliver()
            with pytest.raises(StoreUnavailable, match="does not serve"):
                await saving
        assert await direct.read(partition, [b"a"]) == [None]
        await slow.save(partition, epoch, Checkpoint(2, b""), [(b"b", b"2")])
        assert await direct.read(partition, [b"a", b"b"]) == [None, b"2"]

    play(scenario, valkey_server)


def test_without_a_right_nothing_is_put_either(valkey_server: str) -> None:
    """A state from the archive that could not be given a TTL would stay for ever."""
    partition = f"fraud.customer.{uuid4().hex}.0"

    async def scenario() -> None:
        store = RedisStateStore(as_worker(valkey_server), TTL_MS)
        epoch = (await store.claim(partition)).epoch
        with Redis.from_url(valkey_server) as redis:
            redis.execute_command("ACL SETUSER", "worker", "-pexpire")
            with pytest.raises(StoreRefused, match="does not allow this process"):
                await store.put(partition, epoch, [(b"a", b"1")])
            assert redis.keys(f"{{{partition}}}:*:states:*") == []
        await store.close()

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_a_connection_that_goes_in_the_middle_is_not_made_anew(
    valkey_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """redis-py would: what is left of a transaction would be done at once there, whoever is the owner by now."""
    commands = RedisStateStore._commands

    async def scenario(direct: RedisStateStore, slow: RedisStateStore, _: SlowNetwork, partition: str) -> None:
        epoch = (await slow.claim(partition)).epoch

        def cut(self: RedisStateStore, *how: Any) -> Iterator[Any]:
            for number, command in enumerate(commands(self, *how)):
                if number == 1:
                    for connection in self._nodes._node.redis.connection_pool._in_use_connections:  # type: ignore[attr-defined]
                        connection._close()
                yield command

        with monkeypatch.context() as patch:
            patch.setattr(RedisStateStore, "_commands", cut)
            with pytest.raises(StoreUnavailable, match="in the middle of a transaction"):
                await slow.save(partition, epoch, Checkpoint(1, b""), [(b"a", b"1")])
        assert await direct.read(partition, [b"a"]) == [None]
        assert (await direct.claim(partition)).checkpoint is None

    play(scenario, valkey_server, keep=())


@pytest.mark.parametrize("right", ["hset", "hlen", "pexpire", "watch", "multi", "exec", "evalsha", "sadd"])
@pytest.mark.parametrize("count", [1, 20 * BUCKETS])
def test_a_worker_without_a_right_keeps_nothing(valkey_server: str, count: int, right: str) -> None:
    """Redis says so before anything of the transaction is done; where `multi` is refused, nothing follows it."""
    states = [(b"%d" % number, b"new") for number in range(count)]

    partition = f"fraud.customer.{uuid4().hex}.0"

    async def scenario() -> None:
        store = RedisStateStore(as_worker(valkey_server), TTL_MS)
        epoch = (await store.claim(partition)).epoch
        await store.save(partition, epoch, Checkpoint(1, b""), [])
        with Redis.from_url(valkey_server) as redis:
            redis.execute_command("ACL SETUSER", "worker", f"-{right}")
        with pytest.raises(StoreRefused, match="does not allow this process"):
            await store.save(partition, epoch, Checkpoint(2, b""), states)
        await store.close()
        may_all = RedisStateStore(valkey_server, TTL_MS)
        assert (await may_all.claim(partition)).checkpoint == Checkpoint(1, b"")
        assert await may_all.read(partition, [entity for entity, _ in states]) == [None] * count
        await may_all.close()

    asyncio.run(asyncio.wait_for(scenario(), 20))
