"""What every state store does; memory is the reference, Redis (a real Valkey) must equal it, with a worker's rights."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from infra.local.cluster import ValkeyCluster
from infra.local.ports import free_port
from services.rights.redis import grant, rule
from services.rights.table import table
from streams.stores import redis_nodes
from streams.stores.memory import MemoryStateStore
from streams.stores.redis import RedisStateStore
from streams.stores.state import Checkpoint, Fenced, StateStore, StoreUnavailable, TrackingStore
from streams.usecases import FRAUD
from tests.local import redis_at, within

TTL_MS = 60_000
Scenario = Callable[[TrackingStore, str], Awaitable[None]]
Run = Callable[[Scenario], None]

SERVERS = {"valkey": "valkey_server", "cluster": "valkey_cluster"}
"""The fixture of the URL of each."""

IDS = [b"a", b"", "ключ".encode(), b"\x00\xff{}:\r\n", b"x" * 512]
"""Ids as bytes: empty, not ASCII, not UTF-8, with what means something to Redis."""


@pytest.fixture(
    params=[
        "memory",
        pytest.param("valkey", marks=pytest.mark.integration),
        pytest.param("cluster", marks=[pytest.mark.integration, pytest.mark.local("a cluster is local processes")]),
    ]
)
def kind(request: pytest.FixtureRequest) -> str:
    """Which store."""
    return str(request.param)


@pytest.fixture(scope="session")
def valkey_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running cluster of three masters."""
    with ValkeyCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster.url


def as_worker(url: str) -> str:
    """Return the URL for a user that may do what is granted to a worker, and nothing else."""
    rights = rule(table(FRAUD, 1)["worker"])
    assert rights is not None
    grant(url, {"worker": ["reset", "on", ">secret", *rights]})
    return url.replace("://", "://worker:secret@")


@pytest.fixture
def run(request: pytest.FixtureRequest, kind: str) -> Run:
    """Run a scenario with a store and a partition of its own."""
    partition = f"fraud.customer.{uuid4().hex}.0"

    @asynccontextmanager
    async def opened() -> AsyncIterator[TrackingStore]:
        store: TrackingStore = MemoryStateStore()
        if kind != "memory":
            store = RedisStateStore(as_worker(request.getfixturevalue(SERVERS[kind])), TTL_MS)
        try:
            yield store
        finally:
            await store.close()

    async def scenario_on_store(scenario: Scenario) -> None:
        async with opened() as store:
            await asyncio.wait_for(scenario(store, partition), 30)

    return lambda scenario: asyncio.run(scenario_on_store(scenario))


Snapshot = Callable[[StateStore, str], Callable[[], None]]
"""Takes a snapshot of a partition; what it answers makes the store one that was restarted from it."""


@pytest.fixture
def snapshot(request: pytest.FixtureRequest, kind: str) -> Snapshot:
    """Bring a partition's keys back as they were, as a failover or an older snapshot does."""

    def of_memory(store: StateStore, partition: str) -> Callable[[], None]:
        assert isinstance(store, MemoryStateStore)
        kept = store.kept[partition]
        return lambda: store.kept.update({partition: kept})

    def of_valkey(_: StateStore, partition: str) -> Callable[[], None]:
        return dump(request.getfixturevalue(SERVERS[kind]), partition)

    return of_memory if kind == "memory" else of_valkey


Wipe = Callable[[StateStore, str], None]
Damage = Callable[[StateStore, str, Callable[[bytes], bytes]], None]
"""Replaces a partition's sealed checkpoint by what a function makes of it."""


@pytest.fixture
def wipe(request: pytest.FixtureRequest, kind: str) -> Wipe:
    """Delete everything of a partition, as FLUSHALL does."""

    def of_memory(store: StateStore, partition: str) -> None:
        assert isinstance(store, MemoryStateStore)
        del store.kept[partition]

    def of_valkey(_: StateStore, partition: str) -> None:
        with redis_at(request.getfixturevalue(SERVERS[kind])) as redis:
            redis.delete(*redis.scan_iter(f"{{{partition}}}*", count=10_000))

    return of_memory if kind == "memory" else of_valkey


@pytest.fixture
def damage(request: pytest.FixtureRequest, kind: str) -> Damage:
    """Change a partition's checkpoint behind the store's back."""

    def of_memory(store: StateStore, partition: str, change: Callable[[bytes], bytes]) -> None:
        assert isinstance(store, MemoryStateStore)
        kept = store.kept[partition]
        store.kept[partition] = replace(kept, record=change(kept.record or b""))

    def of_valkey(_: StateStore, partition: str, change: Callable[[bytes], bytes]) -> None:
        key = f"{{{partition}}}:checkpoint"
        with redis_at(request.getfixturevalue(SERVERS[kind])) as redis:
            redis.hset(key, "record", change(redis.hget(key, "record")))

    return of_memory if kind == "memory" else of_valkey


def dump(url: str, partition: str) -> Callable[[], None]:
    """Return what brings the partition's keys back as they are now."""
    with redis_at(url) as redis:
        dumps = {key: redis.dump(key) for key in redis.scan_iter(f"{{{partition}}}*", count=10_000)}

    def restore() -> None:
        with redis_at(url) as redis:
            redis.delete(*redis.scan_iter(f"{{{partition}}}*", count=10_000))
            for key, value in dumps.items():
                redis.restore(key, 0, value)

    return restore


def test_a_first_owner_finds_no_checkpoint(run: Run) -> None:
    """A partition that nobody has kept has no checkpoint and no states."""

    async def scenario(store: StateStore, partition: str) -> None:
        claim = await store.claim(partition)
        assert claim.checkpoint is None
        assert claim.refused is None
        assert await store.read(partition, IDS) == [None] * len(IDS)
        assert await store.load(partition, claim.epoch, IDS) == [None] * len(IDS)

    run(scenario)


def test_claims_raise_the_epoch(run: Run) -> None:
    """Every claim has a higher epoch than all before it; partitions do not share epochs."""

    async def scenario(store: StateStore, partition: str) -> None:
        epochs = [(await store.claim(partition)).epoch for _ in range(3)]
        assert epochs == sorted(set(epochs))
        assert (await store.claim(partition + "0")).epoch == epochs[0]

    run(scenario)


def test_what_is_saved_is_claimed_and_loaded(run: Run) -> None:
    """The next owner finds the last checkpoint, and each state under its own id, binary ones too."""
    marks, states = bytes(range(256)), [(id_, id_[::-1] + bytes([i, 0, 255])) for i, id_ in enumerate(IDS)]

    async def scenario(store: StateStore, partition: str) -> None:
        epoch = (await store.claim(partition)).epoch
        await store.save(partition, epoch, Checkpoint(7, b""), [])
        await store.save(partition, epoch, Checkpoint(2**40, marks), states)
        claim = await store.claim(partition)
        assert claim.checkpoint == Checkpoint(2**40, marks)
        assert await store.load(partition, claim.epoch, IDS) == [state for _, state in states]
        assert await store.read(partition, IDS) == [state for _, state in states]

    run(scenario)


def test_empty_marks_stay_empty(run: Run) -> None:
    """A stage without a gate keeps no marks, and gets none back."""

    async def scenario(store: StateStore, partition: str) -> None:
        await store.save(partition, (await store.claim(partition)).epoch, Checkpoint(0, b""), [])
        assert (await store.claim(partition)).checkpoint == Checkpoint(0, b"")

    run(scenario)


def test_states_come_in_the_order_asked(run: Run) -> None:
    """Loading answers in the order of the question, None where nothing was kept, twice what is asked twice."""

    async def scenario(store: StateStore, partition: str) -> None:
        epoch = (await store.claim(partition)).epoch
        await store.save(partition, epoch, Checkpoint(1, b""), [(b"a", b"1"), (b"b", b"2")])
        assert await store.load(partition, epoch, [b"b", b"?", b"a", b"b"]) == [b"2", None, b"1", b"2"]
        assert await store.read(partition, [b"b", b"?", b"a", b"b"]) == [b"2", None, b"1", b"2"]
        assert await store.load(partition, epoch, []) == await store.read(partition, []) == []

    run(scenario)


def test_a_later_save_replaces_what_it_names_only(run: Run) -> None:
    """Entities that a checkpoint does not name stay as they are."""

    async def scenario(store: StateStore, partition: str) -> None:
        epoch = (await store.claim(partition)).epoch
        await store.save(partition, epoch, Checkpoint(1, b""), [(b"a", b"1"), (b"b", b"1")])
        await store.save(partition, epoch, Checkpoint(2, b""), [(b"b", b"2")])
        assert await store.read(partition, [b"a", b"b"]) == [b"1", b"2"]

    run(scenario)


def test_a_former_owner_writes_nothing(run: Run) -> None:
    """After another's claim a save is refused whole: neither the offset nor a single state of it is kept."""

    async def scenario(store: StateStore, partition: str) -> None:
        former = (await store.claim(partition)).epoch
        await store.save(partition, former, Checkpoint(1, b"m"), [(b"a", b"1")])
        owner = (await store.claim(partition)).epoch
        with pytest.raises(Fenced, match=rf"{partition}: epoch {former} is over, it is {owner} now"):
            await store.save(partition, former, Checkpoint(2, b"n"), [(b"a", b"2"), (b"b", b"2")])
        assert await store.read(partition, [b"a", b"b"]) == [b"1", None]
        await store.save(partition, owner, Checkpoint(3, b"o"), [(b"a", b"3")])
        assert (await store.claim(partition)).checkpoint == Checkpoint(3, b"o")

    run(scenario)


def test_who_never_claimed_writes_nothing(run: Run) -> None:
    """A store that has lost the epoch (all its data) refuses the owner, who must claim again."""

    async def scenario(store: StateStore, partition: str) -> None:
        with pytest.raises(Fenced):
            await store.save(partition, 1, Checkpoint(1, b""), [(b"a", b"1")])
        assert (await store.claim(partition)).checkpoint is None

    run(scenario)


def test_an_owner_whose_writes_were_lost_writes_nothing(run: Run, snapshot: Snapshot) -> None:
    """A store that came back older, the epoch intact, refuses the next save, of what changed since a lost one."""

    async def scenario(store: StateStore, partition: str) -> None:
        epoch = (await store.claim(partition)).epoch
        await store.save(partition, epoch, Checkpoint(1, b"1"), [(b"a", b"1")])
        restore = snapshot(store, partition)
        await store.save(partition, epoch, Checkpoint(2, b"2"), [(b"b", b"2")])
        restore()
        for _ in range(2):
            with pytest.raises(Fenced, match=rf"{partition}: .* has lost writes of epoch {epoch}"):
                await store.save(partition, epoch, Checkpoint(3, b"3"), [(b"c", b"3")])
        assert await store.read(partition, [b"a", b"b", b"c"]) == [b"1", None, None]
        claim = await store.claim(partition)
        assert claim.checkpoint == Checkpoint(1, b"1")
        await store.save(partition, claim.epoch, Checkpoint(2, b"2"), [(b"b", b"2")])
        assert await store.read(partition, [b"a", b"b"]) == [b"1", b"2"]

    run(scenario)


def test_a_store_that_went_back_to_a_former_owner_is_not_his(run: Run, snapshot: Snapshot, wipe: Wipe) -> None:
    """Wiped, claimed by another, then set back: the claim is his again, but not what he saved under it."""

    async def scenario(store: StateStore, partition: str) -> None:
        former = (await store.claim(partition)).epoch
        restore = snapshot(store, partition)
        await store.save(partition, former, Checkpoint(1, b""), [(b"a", b"1")])
        wipe(store, partition)
        await store.claim(partition)
        restore()
        with pytest.raises(Fenced, match="has lost writes"):
            await store.save(partition, former, Checkpoint(2, b""), [(b"b", b"2")])

    run(scenario)


def test_a_store_that_lost_nothing_of_the_owner_goes_on(run: Run, snapshot: Snapshot) -> None:
    """Restarted from a snapshot that has the last save, or the claim before any: nothing is refused."""

    async def scenario(store: StateStore, partition: str) -> None:
        former = (await store.claim(partition)).epoch
        await store.save(partition, former, Checkpoint(1, b""), [(b"a", b"1")])
        epoch = (await store.claim(partition)).epoch
        snapshot(store, partition)()
        await store.save(partition, epoch, Checkpoint(2, b""), [(b"b", b"2")])
        snapshot(store, partition)()
        await store.save(partition, epoch, Checkpoint(3, b""), [(b"c", b"3")])
        assert (await store.claim(partition)).checkpoint == Checkpoint(3, b"")

    run(scenario)


def test_an_owner_whose_claim_was_lost_writes_nothing(run: Run, snapshot: Snapshot) -> None:
    """A claim that the store has forgotten is none, even after another that finds what it found."""

    async def scenario(store: StateStore, partition: str) -> None:
        await store.save(partition, (await store.claim(partition)).epoch, Checkpoint(1, b""), [(b"a", b"1")])
        restore = snapshot(store, partition)
        forgotten = (await store.claim(partition)).epoch
        restore()
        with pytest.raises(Fenced):
            await store.save(partition, forgotten, Checkpoint(2, b""), [(b"a", b"2")])
        assert await store.read(partition, [b"a"]) == [b"1"]

    run(scenario)


def test_a_former_owner_reads_nothing(run: Run) -> None:
    """What another owner keeps is of another moment than what this one folds: it is not loaded into it."""

    async def scenario(store: StateStore, partition: str) -> None:
        former = (await store.claim(partition)).epoch
        owner = (await store.claim(partition)).epoch
        await store.save(partition, owner, Checkpoint(1, b""), [(b"a", b"1")])
        with pytest.raises(Fenced, match=rf"{partition}: epoch {former} is over, it is {owner} now"):
            await store.load(partition, former, [b"a"])
        assert await store.load(partition, owner, [b"a"]) == [b"1"]

    run(scenario)


def test_an_owner_whose_writes_were_lost_reads_nothing(run: Run, snapshot: Snapshot) -> None:
    """A state that the store has lost must not be taken for that of a new entity, or an older one for the last."""

    async def scenario(store: StateStore, partition: str) -> None:
        epoch = (await store.claim(partition)).epoch
        await store.save(partition, epoch, Checkpoint(1, b""), [(b"a", b"1")])
        restore = snapshot(store, partition)
        await store.save(partition, epoch, Checkpoint(2, b""), [(b"a", b"2"), (b"b", b"2")])
        restore()
        with pytest.raises(Fenced, match=rf"{partition}: .* has lost writes of epoch {epoch}"):
            await store.load(partition, epoch, [b"a", b"b"])

    run(scenario)


def test_a_store_that_was_wiped_has_no_owner(run: Run, wipe: Wipe) -> None:
    """All is gone: the owner neither reads nor writes, the next one finds nothing and goes on from there."""

    async def scenario(store: StateStore, partition: str) -> None:
        epoch = (await store.claim(partition)).epoch
        await store.save(partition, epoch, Checkpoint(1, b""), [(b"a", b"1")])
        wipe(store, partition)
        lost = rf"{partition}: .* has lost writes of epoch {epoch}"
        with pytest.raises(Fenced, match=lost):
            await store.load(partition, epoch, [b"a"])
        with pytest.raises(Fenced, match=lost):
            await store.save(partition, epoch, Checkpoint(2, b""), [(b"a", b"2")])
        claim = await store.claim(partition)
        assert (claim.checkpoint, claim.refused) == (None, None)
        await store.save(partition, claim.epoch, Checkpoint(1, b""), [(b"a", b"1")])
        assert await store.load(partition, claim.epoch, [b"a"]) == [b"1"]

    run(scenario)


def test_a_checkpoint_of_which_one_bit_has_changed_is_refused(run: Run, damage: Damage) -> None:
    """It is set aside under a name that is told, the next generation reads none of its states, and is kept itself."""

    async def scenario(store: StateStore, partition: str) -> None:
        epoch = (await store.claim(partition)).epoch
        await store.save(partition, epoch, Checkpoint(5, b"marks"), [(b"a", b"1"), (b"b", b"1")])
        damage(store, partition, lambda record: record[:3] + bytes([record[3] ^ 1]) + record[4:])
        claim = await store.claim(partition)
        assert claim.checkpoint is None
        assert claim.epoch > epoch
        assert f"{partition}}}:refused:" in str(claim.refused)
        assert await store.load(partition, claim.epoch, [b"a", b"b"]) == [None, None]
        await store.save(partition, claim.epoch, Checkpoint(2, b"m"), [(b"b", b"2")])
        again = await store.claim(partition)
        assert (again.checkpoint, again.refused) == (Checkpoint(2, b"m"), None)
        assert await store.load(partition, again.epoch, [b"a", b"b"]) == [None, b"2"]

    run(scenario)


@pytest.mark.parametrize("length", [0, 15, 31, 36])
def test_a_checkpoint_that_was_cut_off_is_refused(run: Run, damage: Damage, length: int) -> None:
    """Wherever it ends too early."""

    async def scenario(store: StateStore, partition: str) -> None:
        await store.save(partition, (await store.claim(partition)).epoch, Checkpoint(5, b"marks"), [(b"a", b"1")])
        damage(store, partition, lambda record: record[:length])
        claim = await store.claim(partition)
        assert claim.checkpoint is None
        assert claim.refused

    run(scenario)


def test_a_checkpoint_of_another_partition_or_save_is_refused(run: Run, damage: Damage) -> None:
    """Whole, but not what was kept here last: its offset would not fit the states."""

    async def scenario(store: StateStore, partition: str) -> None:
        other, records = partition + "1", list[bytes]()
        for name in (partition, other):
            await store.save(name, (await store.claim(name)).epoch, Checkpoint(5, b""), [(b"a", b"1")])
            damage(store, name, lambda record: records.append(record) or record)  # type: ignore[func-returns-value]
        await store.save(other, (await store.claim(other)).epoch, Checkpoint(6, b""), [(b"a", b"2")])
        damage(store, other, lambda record: records[1])
        damage(store, partition, lambda record: records[1])
        assert (await store.claim(other)).refused
        assert (await store.claim(partition)).refused

    run(scenario)


def test_an_unfit_state_is_set_aside_with_its_partition(run: Run) -> None:
    """Its owner is fenced by that, and the next one finds no checkpoint and none of the states."""

    async def scenario(store: StateStore, partition: str) -> None:
        epoch = (await store.claim(partition)).epoch
        await store.save(partition, epoch, Checkpoint(5, b"marks"), [(b"a", b"bad"), (b"b", b"1")])
        place = await store.set_aside(partition, epoch, b"a")
        assert place.startswith(f"{{{partition}}}:refused:")
        with pytest.raises(Fenced):
            await store.load(partition, epoch, [b"b"])
        with pytest.raises(Fenced):
            await store.save(partition, epoch, Checkpoint(6, b""), [(b"b", b"2")])
        claim = await store.claim(partition)
        assert (claim.checkpoint, claim.refused) == (None, None)
        assert claim.epoch > epoch
        assert await store.load(partition, claim.epoch, [b"a", b"b"]) == [None, None]

    run(scenario)


def test_who_owns_nothing_sets_nothing_aside(run: Run) -> None:
    """A former owner's finding is about what another keeps now."""

    async def scenario(store: StateStore, partition: str) -> None:
        former = (await store.claim(partition)).epoch
        await store.save(partition, former, Checkpoint(5, b""), [(b"a", b"1")])
        owner = (await store.claim(partition)).epoch
        with pytest.raises(Fenced):
            await store.set_aside(partition, former, b"a")
        assert await store.load(partition, owner, [b"a"]) == [b"1"]

    run(scenario)


async def changed(store: TrackingStore, partition: str, epoch: int, recent: bool) -> set[bytes]:
    cursor, found = await store.changed(partition, epoch, recent)
    while cursor:
        cursor, more = await store.changed(partition, epoch, recent, cursor)
        found += more
    return set(found)


def test_changes_are_noted_for_the_archive(run: Run) -> None:
    """A round is about what was saved before it, what is saved meanwhile is for the next."""

    async def scenario(store: TrackingStore, partition: str) -> None:
        epoch = (await store.claim(partition)).epoch
        await store.begin_round(partition, epoch)
        assert await changed(store, partition, epoch, recent=False) == set()
        await store.save(partition, epoch, Checkpoint(1, b""), [(id_, b"1") for id_ in IDS])
        await store.save(partition, epoch, Checkpoint(2, b""), [(b"a", b"2")])
        assert await changed(store, partition, epoch, recent=True) == set(IDS)
        await store.begin_round(partition, epoch)
        await store.save(partition, epoch, Checkpoint(3, b""), [(b"a", b"3"), (b"z", b"3")])
        assert await changed(store, partition, epoch, recent=False) == set(IDS)
        assert await changed(store, partition, epoch, recent=True) == {b"a", b"z"}
        await store.end_round(partition, epoch)
        assert await changed(store, partition, epoch, recent=False) == set()
        assert await changed(store, partition, epoch, recent=True) == {b"a", b"z"}

    run(scenario)


def test_a_round_that_was_broken_off_is_part_of_the_next(run: Run) -> None:
    """Also of the next owner's: nothing that changed is missed by the archive."""

    async def scenario(store: TrackingStore, partition: str) -> None:
        epoch = (await store.claim(partition)).epoch
        many = [(f"e{i}".encode(), b"1") for i in range(3000)]
        await store.save(partition, epoch, Checkpoint(1, b""), many)
        await store.begin_round(partition, epoch)
        await store.save(partition, epoch, Checkpoint(2, b""), [(b"z", b"2")])
        owner = (await store.claim(partition)).epoch
        for call in (store.begin_round, store.end_round):
            with pytest.raises(Fenced):
                await call(partition, epoch)
        await store.begin_round(partition, owner)
        assert await changed(store, partition, owner, recent=False) == {id_ for id_, _ in many} | {b"z"}
        assert await changed(store, partition, owner, recent=True) == set()
        with pytest.raises(Fenced):  # these are another's: a former owner would delete what they need
            await changed(store, partition, epoch, recent=False)

    run(scenario)


def test_states_that_were_put_count_with_the_next_checkpoint(run: Run) -> None:
    """They come from the archive: no change, and nothing at all if the restore ends before its checkpoint."""

    async def scenario(store: TrackingStore, partition: str) -> None:
        broken_off = (await store.claim(partition)).epoch
        await store.put(partition, broken_off, [(b"a", b"1"), (b"b", b"1")])
        claim = await store.claim(partition)
        assert claim.checkpoint is None
        assert await store.load(partition, claim.epoch, [b"a"]) == [None]
        await store.put(partition, claim.epoch, [(b"a", b"2")])
        await store.save(partition, claim.epoch, Checkpoint(7, b"m", 9), [])
        with pytest.raises(Fenced):
            await store.put(partition, broken_off, [(b"a", b"1")])
        assert await changed(store, partition, claim.epoch, recent=True) == set()
        claim = await store.claim(partition)
        assert claim.checkpoint == Checkpoint(7, b"m", 9)
        assert await store.load(partition, claim.epoch, [b"a", b"b"]) == [b"2", None]

    run(scenario)


def test_partitions_do_not_meet(run: Run) -> None:
    """The same entity in two partitions is two states."""

    async def scenario(store: StateStore, partition: str) -> None:
        for name, state in ((partition, b"0"), (partition + "1", b"1")):
            await store.save(name, (await store.claim(name)).epoch, Checkpoint(1, b""), [(b"a", state)])
        assert await store.read(partition, [b"a"]) == [b"0"]
        assert await store.read(partition + "1", [b"a"]) == [b"1"]

    run(scenario)


def test_many_entities_in_one_checkpoint(run: Run) -> None:
    """Five thousand states of a kilobyte are kept in one save."""
    states = [(f"entity-{i}".encode(), f"{i}".encode() * 250) for i in range(5_000)]

    async def scenario(store: StateStore, partition: str) -> None:
        await store.save(partition, (await store.claim(partition)).epoch, Checkpoint(9, b"m"), states)
        assert await store.read(partition, [id_ for id_, _ in states]) == [state for _, state in states]

    run(scenario)


# Redis alone.


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def unavailable(url: str) -> str:
    """What a store at `url` says when it is asked for anything."""

    async def ask() -> None:
        store = RedisStateStore(url, TTL_MS)
        try:
            await store.claim("p")
        finally:
            await store.close()

    with pytest.raises(StoreUnavailable) as caught:
        asyncio.run(asyncio.wait_for(ask(), 10))
    return str(caught.value)


def test_an_unreachable_redis_is_named() -> None:
    """Nobody listens: one line names the address, at once."""
    address = f"127.0.0.1:{free_port()}"
    assert unavailable(f"redis://{address}/0").startswith(f"Redis at {address} does not answer")


def test_a_redis_that_hangs_is_named_within_the_time_out(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that says nothing is given up after the socket's time-out, not waited for."""
    monkeypatch.setattr(redis_nodes, "SOCKET_SECONDS", 0.3)
    began = time.monotonic()
    assert unavailable(f"redis://{silent}/0").startswith(f"Redis at {silent} does not answer")
    assert time.monotonic() - began < 5


def test_the_password_is_not_told() -> None:
    """The line that names the address leaves the credentials out."""
    address = f"127.0.0.1:{free_port()}"
    said = unavailable(f"redis://user:hush@{address}/0")
    assert address in said
    assert "hush" not in said


def test_an_unreachable_cluster_is_named() -> None:
    """Of several nodes nobody listens: the line names them all, and no password."""
    addresses = f"127.0.0.1:{free_port()},127.0.0.1:{free_port()}"
    said = unavailable(f"redis+cluster://user:hush@{addresses}")
    assert said.startswith(f"no node of the Redis Cluster at {addresses} tells its slots")
    assert "hush" not in said


@pytest.mark.integration
@pytest.mark.local("a cluster is local processes")
def test_one_node_that_answers_is_enough(silent: str, valkey_cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the nodes that a URL names one is gone and one hangs: the cluster is found by the third, for grants too."""
    monkeypatch.setattr(redis_nodes, "SOCKET_SECONDS", 0.3)
    third = valkey_cluster.rpartition(",")[2]
    url = as_worker(f"redis+cluster://127.0.0.1:{free_port()},{third}")

    async def scenario() -> None:
        store = RedisStateStore(url.replace("@", f"@{silent},"), TTL_MS)
        await store.ping()
        partition = f"fraud.customer.{uuid4().hex}.0"
        assert (await store.claim(partition)).epoch == 1
        await store.close()

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_one_server_is_no_cluster(valkey_server: str) -> None:
    """Who names a single Redis as a cluster is told that it is none."""
    address = urlsplit(valkey_server).netloc
    said = unavailable(f"redis+cluster://{address}")
    assert said.startswith(f"no node of the Redis Cluster at {address} tells its slots")
    assert "cluster support disabled" in said


@contextmanager
def busy(url: str) -> Iterator[None]:
    """A Redis that runs somebody's endless script inside the block, and answers nothing else."""
    with Redis.from_url(url) as redis, Redis.from_url(url) as endless, ThreadPoolExecutor(1) as apart:

        def refuses() -> bool:
            try:
                redis.ping()
            except ResponseError as error:
                return str(error).startswith("BUSY")
            return False

        (usual,) = redis.config_get("busy-reply-threshold").values()
        redis.config_set("busy-reply-threshold", 1)
        running = apart.submit(endless.eval, "while true do end", 0)
        try:
            assert within(10, refuses)
            yield
        finally:
            redis.script_kill()
            assert "killed" in str(running.exception(10))
            redis.config_set("busy-reply-threshold", usual)


def test_a_redis_that_is_busy_is_waited_for(valkey_server: str) -> None:
    """It passes, whatever is asked just then: the archive's pages as well."""
    partition = f"fraud.customer.{uuid4().hex}.0"

    async def scenario() -> None:
        store = RedisStateStore(valkey_server, TTL_MS)
        epoch = (await store.claim(partition)).epoch
        await store.save(partition, epoch, Checkpoint(1, b""), [(b"a", b"1")])
        with busy(valkey_server):
            with pytest.raises(StoreUnavailable, match="BUSY"):
                await store.load(partition, epoch, [b"a"])
            with pytest.raises(StoreUnavailable, match="BUSY"):
                await store.changed(partition, epoch, recent=True)
        assert await changed(store, partition, epoch, recent=True) == {b"a"}
        await store.close()

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_keys_share_a_slot_and_states_expire(valkey_server: str) -> None:
    """A partition's keys have one hash tag, as a cluster asks; states live for the TTL, the checkpoint for ever."""
    partition = f"fraud.customer.{uuid4().hex}.3"

    async def save() -> None:
        store = RedisStateStore(valkey_server, TTL_MS)
        await store.save(partition, (await store.claim(partition)).epoch, Checkpoint(1, b"m"), [(b"a", b"1")])
        await store.close()

    asyncio.run(save())
    with Redis.from_url(valkey_server) as redis:
        keys = {key: redis.pttl(key) for key in redis.keys(f"*{partition}*")}
        generation = redis.hget(f"{{{partition}}}:checkpoint", "generation")
    tag = f"{{{partition}}}:".encode()
    state = tag + generation + b":e:a"
    assert set(keys) == {tag + b"checkpoint", tag + generation + b":recent", state}
    assert 0 < keys.pop(state) <= TTL_MS
    assert 0 < keys.pop(tag + generation + b":recent") <= TTL_MS
    assert set(keys.values()) == {-1}


class SlowNetwork:
    """A way to a server that keeps what the first connection to save sends, until told to deliver it."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._kept: tuple[asyncio.StreamWriter, bytes] | None = None
        self._answered = asyncio.Event()

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to = await asyncio.open_connection(self._target.hostname, self._target.port)
        back = asyncio.create_task(self._back(there, writer))
        while data := await reader.read(1 << 16):
            if self._kept is None and b"EVALSHA" in data and b":e:a" in data:
                self._kept = to, data
            else:
                to.write(data)
        await back

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            self._answered.set()
        writer.close()

    async def deliver(self) -> None:
        """Let what was kept arrive, and wait until the server has dealt with it."""
        assert self._kept
        to, data = self._kept
        self._answered.clear()
        to.write(data)
        await asyncio.wait_for(self._answered.wait(), 5)
        to.close()


def test_a_save_that_arrives_late_changes_nothing(valkey_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save that timed out on its way and arrives after the next one does not bring the old state back."""
    monkeypatch.setattr(redis_nodes, "SOCKET_SECONDS", 0.3)
    partition = f"fraud.customer.{uuid4().hex}.0"

    async def scenario() -> None:
        network = SlowNetwork(valkey_server)
        direct, slow = RedisStateStore(valkey_server, TTL_MS), RedisStateStore(await network.start(), TTL_MS)
        other = partition + "1"
        await direct.save(other, (await direct.claim(other)).epoch, Checkpoint(0, b""), [])  # the server has the script
        epoch = (await slow.claim(partition)).epoch
        with pytest.raises(StoreUnavailable):
            await slow.save(partition, epoch, Checkpoint(100, b"old"), [(b"a", b"old")])
        await slow.save(partition, epoch, Checkpoint(200, b"new"), [(b"a", b"new"), (b"b", b"new")])
        await network.deliver()
        assert await direct.read(partition, [b"a", b"b"]) == [b"new", b"new"]
        assert (await direct.claim(partition)).checkpoint == Checkpoint(200, b"new")
        await slow.close()
        await direct.close()

    asyncio.run(asyncio.wait_for(scenario(), 20))


@pytest.mark.integration
def test_a_redis_that_went_back_to_a_former_owner_is_not_his(valkey_server: str) -> None:
    """As above, with the former owner a process of its own, which has not heard of its successor."""
    partition = f"fraud.customer.{uuid4().hex}.0"

    async def scenario() -> None:
        first, second = RedisStateStore(valkey_server, TTL_MS), RedisStateStore(valkey_server, TTL_MS)
        former = (await first.claim(partition)).epoch
        restore = dump(valkey_server, partition)
        await first.save(partition, former, Checkpoint(1, b""), [(b"a", b"1")])
        await second.claim(partition)
        restore()
        with pytest.raises(Fenced, match="has lost writes"):
            await first.save(partition, former, Checkpoint(2, b""), [(b"b", b"2")])
        await first.close()
        await second.close()

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_two_workers_under_one_epoch_are_not_both_owners(valkey_server: str) -> None:
    """Redis loses a worker's claim and gives its epoch to the next: the first is fenced, the second goes on."""
    partition = f"fraud.customer.{uuid4().hex}.0"

    async def scenario() -> None:
        first, second = RedisStateStore(valkey_server, TTL_MS), RedisStateStore(valkey_server, TTL_MS)
        await first.save(partition, (await first.claim(partition)).epoch, Checkpoint(1, b""), [(b"a", b"1")])
        restore = dump(valkey_server, partition)
        forgotten = (await first.claim(partition)).epoch
        restore()
        claim = await second.claim(partition)
        assert claim.epoch == forgotten
        with pytest.raises(Fenced, match=r"Redis at .* has lost writes"):
            await first.save(partition, forgotten, Checkpoint(2, b""), [(b"a", b"2")])
        await second.save(partition, claim.epoch, Checkpoint(3, b""), [(b"b", b"3")])
        assert await second.read(partition, [b"a", b"b"]) == [b"1", b"3"]
        await first.close()
        await second.close()

    asyncio.run(asyncio.wait_for(scenario(), 20))


@pytest.mark.parametrize(
    "reply",
    [
        "READONLY You can't write against a read only replica.",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "NOREPLICAS Not enough good replicas to write.",
        "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
        "CLUSTERDOWN The cluster is down",
        "LOADING Redis is loading the dataset in memory",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "BUSY Redis is busy running a script.",
    ],
)
def test_a_redis_that_cannot_serve_for_now_is_waited_for(reply: str) -> None:
    """What passes by itself (a failover, a full memory, a start) is no fault: claims, loads and saves may be tried
    again."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            for _ in range(2 * int(line[1:])):  # of each argument its size, then itself
                await reader.readline()
            writer.write(f"-{reply}\r\n".encode())
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        store = RedisStateStore(f"redis://{address}/0", TTL_MS)
        for ask in (
            lambda: store.claim("p"),
            lambda: store.load("p", 1, [b"a"]),
            lambda: store.save("p", 1, Checkpoint(1, b""), [(b"a", b"1")]),
        ):
            with pytest.raises(StoreUnavailable, match=f"Redis at {address} does not"):
                await ask()
        await store.close()
        server.close()

    asyncio.run(asyncio.wait_for(scenario(), 20))


@pytest.mark.integration
@pytest.mark.parametrize(
    ("field", "value"),
    [("number", b"8"), ("number", b"x"), ("generation", b"00000000"), ("epoch", b"x"), ("epoch", b"9" * 40)],
)
def test_every_field_of_a_checkpoint_is_checked(valkey_server: str, field: str, value: bytes) -> None:
    """A number, generation or epoch that was changed: set aside with a TTL, and the next claim is sound."""
    partition = f"fraud.customer.{uuid4().hex}.0"

    async def scenario() -> str:
        store = RedisStateStore(valkey_server, TTL_MS)
        epoch = (await store.claim(partition)).epoch
        for offset in range(3):
            await store.save(partition, epoch, Checkpoint(offset, b""), [(b"a", b"1")])
        with Redis.from_url(valkey_server) as redis:
            redis.hset(f"{{{partition}}}:checkpoint", field, value)
        claim = await store.claim(partition)
        assert claim.checkpoint is None
        assert await store.load(partition, claim.epoch, [b"a"]) == [None]
        await store.save(partition, claim.epoch, Checkpoint(9, b""), [(b"a", b"9")])
        assert (await store.claim(partition)).checkpoint == Checkpoint(9, b"")
        await store.close()
        return str(claim.refused)

    place = asyncio.run(asyncio.wait_for(scenario(), 20))
    with Redis.from_url(valkey_server) as redis:
        assert redis.hget(place, field) is not None
        assert 0 < redis.pttl(place) <= TTL_MS


@pytest.mark.integration
def test_a_key_of_another_type_is_set_aside(valkey_server: str) -> None:
    """A checkpoint that is no hash, and a state that is no string: whatever they are, they are kept aside."""
    partition = f"fraud.customer.{uuid4().hex}.0"

    async def scenario() -> None:
        store = RedisStateStore(valkey_server, TTL_MS)
        with Redis.from_url(valkey_server) as redis:
            redis.set(f"{{{partition}}}:checkpoint", "?")
            claim = await store.claim(partition)
            assert redis.get(str(claim.refused)) == b"?"
            await store.save(partition, claim.epoch, Checkpoint(1, b""), [(b"a", b"1")])
            (state,) = redis.keys(f"{{{partition}}}:*:e:a")
            redis.delete(state)
            redis.rpush(state, "1")
            assert await store.load(partition, claim.epoch, [b"a"]) == [b""]
            place = await store.set_aside(partition, claim.epoch, b"a")
            assert redis.lrange(place + ":state", 0, -1) == [b"1"]
            assert redis.hget(place, "entity") == state
        await store.close()

    asyncio.run(asyncio.wait_for(scenario(), 20))


@pytest.mark.integration
def test_another_process_sets_nothing_aside_that_it_does_not_own(valkey_server: str) -> None:
    """The former owner's finding changes nothing of what the owner keeps."""
    partition = f"fraud.customer.{uuid4().hex}.0"

    async def scenario() -> None:
        former, owner = RedisStateStore(valkey_server, TTL_MS), RedisStateStore(valkey_server, TTL_MS)
        epoch = (await former.claim(partition)).epoch
        await former.save(partition, epoch, Checkpoint(1, b""), [(b"a", b"1")])
        claim = await owner.claim(partition)
        with pytest.raises(Fenced):
            await former.set_aside(partition, epoch, b"a")
        assert await owner.load(partition, claim.epoch, [b"a"]) == [b"1"]
        await former.close()
        await owner.close()

    asyncio.run(asyncio.wait_for(scenario(), 20))
