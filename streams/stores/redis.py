"""The state store in Redis or Valkey: a partition's keys share one hash slot, a checkpoint is one transaction.

    {fraud.customer.0123456789abcdef.3}:checkpoint      hash of the `record` (offset and marks, sealed), the `number`
                                                        of the save, its `period` and `since` when that goes, the
                                                        `epoch` (how often the partition was claimed), the `owner` (the
                                                        last claim) and the `generation`
    {fraud.customer.0123456789abcdef.3}:89abcdef:states:5:12
                                                        hash of the state bytes of entities of generation 89abcdef,
                                                        by id: those of bucket 12 that were last saved in period 5
    {fraud.customer.0123456789abcdef.3}:89abcdef:recent set of the entities that were saved since the last round of
                                                        archiving began; `…:old`, of those that it is about
    {fraud.customer.0123456789abcdef.3}:refused:<claim> a checkpoint that was set aside, with a TTL; its field `entity`
                                                        names the entity whose state was unfit, if one was, which is
                                                        beside it, as …:refused:<claim>:state

A reader sees all of a checkpoint or none: its states are sent in pieces, which Redis puts by until the last (`MULTI`),
and so it takes in a megabyte while it serves others. A script checks first whether this is the owner, and nothing is
kept if the checkpoint changes after that (`WATCH`), so nothing of a late former owner's is. The numbers of saves rise,
so that one that timed out and arrives after the next changes nothing. A Redis that came back without its last writes
(a failover, an older snapshot) has a lower number than the owner has seen, or another owner (an epoch may come twice
then), and refuses: a checkpoint holds only what changed since the one before, and a state that was lost must not be
taken for a new entity's. A claim that finds no checkpoint names a new generation after itself, so that nothing left of
an earlier one is read, and nothing has to be deleted: it expires.

Fields of a hash cost Redis less than keys, but have no TTL each. So a period goes for at least the TTL, a save moves
the entities it names into the present one, and a hash lives for the TTL after its last save: what is in neither
this period nor the one before has been left alone for a TTL.

Time-outs are the sockets': a cancelled command would leave its reply to the next one. In a cluster each partition is
one master's alone (`redis_nodes.py`), and what is said of Redis here holds for that master.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple
from uuid import uuid4

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from streams.features.table import StateRefused
from streams.stores import redis_keys as keys_of
from streams.stores import redis_scripts as scripts
from streams.stores.redis_nodes import Call, nodes
from streams.stores.redis_transaction import Command, carried_out
from streams.stores.state import Checkpoint, Claim, Fenced, States, StoreUnavailable

Values = Sequence[bytes | int | str]

DAMAGED_CODES = ("WRONGTYPE", "hash value is not an integer")

PAGE = 1000  # entities in one answer

TRIES = 3
"""Of a save or a look: what changes the checkpoint meanwhile is another's claim, or a save that had timed out."""

SLACK_SECONDS = 10
"""By which a period is longer than the TTL, as what is known of Redis's clock may be as old as a time-out."""


class Save(NamedTuple):
    """A save's number, the period it is in, and when that began, in seconds of Redis's clock."""

    number: int
    period: int
    since: int


NO_SAVE = Save(0, 0, 0)


@dataclass
class Hold:
    """A claim as this process knows it: what proves it, and how far it has saved.

    Periods go by Redis's clock, as TTLs do; that was `ahead` of ours, in seconds, when the partition was claimed.
    """

    epoch: int = 0
    token: str = ""
    generation: bytes = b""
    ahead: float = 0.0
    kept: int = 0  # the number of the last save that is known to be kept
    tried: Save = NO_SAVE  # the last that was sent
    scanned: str = ""  # the run of Redis in which the scan of what has changed was begun


class RedisStateStore:
    """Checkpoints in Redis; entities that get no event for one to two times `ttl_ms` expire, as nothing of them is in a
    window.

    `clock` tells seconds from any moment on, and never goes back.
    """

    def __init__(self, url: str, ttl_ms: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._nodes = nodes(url)
        self._ttl = ttl_ms
        self._clock = clock
        self._holds: dict[str, Hold] = {}

    async def claim(self, partition: str) -> Claim:
        token = uuid4().hex
        try:
            return await self._claimed(partition, token, None)
        except StateRefused:
            refused = await self._moved(partition, 0, token)
        return await self._claimed(partition, token, refused)

    async def load(self, partition: str, epoch: int, entities: Sequence[bytes]) -> list[bytes | None]:
        if not entities:
            return []
        hold = self._hold(partition, epoch)
        keys, places = keys_of.places(partition, hold.generation, hold.tried.period, entities)
        values = [epoch, hold.token, hold.kept, *places]
        states: list[bytes | None] = await self._owned(
            partition, epoch, scripts.LOAD, [keys_of.checkpoint(partition), *keys], values
        )
        return states

    async def save(self, partition: str, epoch: int, checkpoint: Checkpoint, states: States) -> None:
        await self._write(partition, epoch, checkpoint, states)

    async def put(self, partition: str, epoch: int, states: States) -> None:
        await self._write(partition, epoch, None, states)

    async def _write(self, partition: str, epoch: int, checkpoint: Checkpoint | None, states: States) -> None:
        hold = self._hold(partition, epoch)
        save = hold.tried = self._next(hold)
        place, buckets = keys_of.checkpoint(partition), keys_of.bucketed(states)

        async def commands(redis: Redis) -> Iterator[Command]:
            keys = [_states(partition, hold, save, bucket, ago) for bucket in buckets for ago in (0, 1)]
            values: Values = [epoch, hold.token, hold.kept, save.number]
            former = await _script(scripts.MAY_SAVE, [place, *keys], values)(redis)
            record = checkpoint.sealed(partition, hold.generation, *save) if checkpoint else b""
            moved = {bucket for bucket, count in zip(buckets, former, strict=True) if count}
            return self._commands(partition, hold, save, record, buckets, moved)

        for _ in range(TRIES):
            if await self._answer(partition, epoch, lambda redis: carried_out(redis, place, commands)):
                hold.kept = save.number
                return
        raise self._unsteady(partition)

    def _unsteady(self, partition: str) -> StoreUnavailable:
        return StoreUnavailable(f"{partition}: its checkpoint in Redis at {self._nodes.address} changes all the time")

    def _next(self, hold: Hold) -> Save:
        number, period, since = hold.tried
        now = int(self._clock() + hold.ahead)
        if (now - since - SLACK_SECONDS) * 1000 >= self._ttl:
            period, since = period + 1, now
        return Save(number + 1, period, since)

    def _commands(
        self,
        partition: str,
        hold: Hold,
        save: Save,
        record: bytes,
        buckets: Mapping[int, States],
        moved: Collection[int],
    ) -> Iterator[Command]:
        """Yield the commands of a save, the last of which makes it count; in the buckets `moved` there are entities
        of the period before."""
        if record and buckets:
            recent = keys_of.changed(partition, hold.generation, recent=True)
            yield "SADD", recent, *(entity for states in buckets.values() for entity, _ in states)
            yield "PEXPIRE", recent, self._ttl
        for bucket, states in buckets.items():
            present = _states(partition, hold, save, bucket)
            yield "HSET", present, *chain.from_iterable(states)
            yield "PEXPIRE", present, self._ttl
            if bucket in moved:
                yield "HDEL", _states(partition, hold, save, bucket, ago=1), *(entity for entity, _ in states)
        fields: Iterator[int | str] = chain.from_iterable(save._asdict().items())
        yield "HSET", keys_of.checkpoint(partition), *fields, *(("record", record) if record else ())

    async def set_aside(self, partition: str, epoch: int, entity: bytes) -> str:
        hold = self._hold(partition, epoch)
        keys, _ = keys_of.places(partition, hold.generation, hold.tried.period, [entity])
        return await self._moved(partition, epoch, hold.token, keys, entity)

    async def read(self, partition: str, entities: Sequence[bytes]) -> list[bytes | None]:
        place = keys_of.checkpoint(partition)
        for _ in range(TRIES):
            generation, period = await self._nodes.asked(
                partition, lambda redis: redis.hmget(place, "generation", "period")
            )
            if generation is None or not entities:
                return [None] * len(entities)
            keys, places = keys_of.places(partition, generation, int(period or 0), entities)
            values = [generation, period or b"", *places]
            states: list[bytes | None] | None = await self._nodes.asked(
                partition, _script(scripts.READ, [place, *keys], values)
            )
            if states is not None:
                return states
        raise self._unsteady(partition)

    async def begin_round(self, partition: str, epoch: int) -> None:
        hold = self._hold(partition, epoch)
        changed = [keys_of.changed(partition, hold.generation, recent) for recent in (True, False)]
        values: list[int | str] = [epoch, hold.token, hold.kept, self._ttl]
        await self._owned(partition, epoch, scripts.BEGIN_ROUND, [keys_of.checkpoint(partition), *changed], values)

    async def changed(self, partition: str, epoch: int, recent: bool, cursor: int = 0) -> tuple[int, list[bytes]]:
        hold = self._hold(partition, epoch)
        key = keys_of.changed(partition, hold.generation, recent)
        (then, entities), run = await self._nodes.asked(partition, lambda redis: _page(redis, key, cursor))
        if cursor and run != hold.scanned:
            # A cursor means something to the process alone that gave it; another would pass entities over.
            raise StoreUnavailable(f"{partition}: Redis has been started, or taken over from, between two pages")
        hold.scanned = run
        # Who owns the partition after it was read has read of its own round.
        await self._owned(
            partition, epoch, scripts.LOAD, [keys_of.checkpoint(partition)], [epoch, hold.token, hold.kept]
        )
        return int(then), list(entities)

    async def end_round(self, partition: str, epoch: int) -> None:
        hold = self._hold(partition, epoch)
        keys = [keys_of.checkpoint(partition), keys_of.changed(partition, hold.generation, recent=False)]
        await self._owned(partition, epoch, scripts.END_ROUND, keys, [epoch, hold.token, hold.kept])

    async def ping(self) -> None:
        """Raise StoreUnavailable where Redis, or one of its masters, does not answer."""
        await self._nodes.ping()

    async def close(self) -> None:
        await self._nodes.close()

    async def _claimed(self, partition: str, token: str, refused: str | None) -> Claim:
        """Claim; raise StateRefused where what is kept is not what was written."""
        try:
            answer = await self._nodes.asked(
                partition, _script(scripts.CLAIM, [keys_of.checkpoint(partition)], [token, token[:8]])
            )
        except ResponseError as error:
            if any(code in str(error) for code in DAMAGED_CODES):
                raise StateRefused(str(error)) from None
            raise
        epoch, now, generation, record, *numbers = answer
        if any(number and not number.isdigit() for number in numbers):
            raise StateRefused("damaged (a number of it is none)")
        save = Save(*(int(number or 0) for number in numbers))
        checkpoint = None if record is None else Checkpoint.opened(record, partition, generation, *save)
        ahead = int(now) - self._clock()
        self._holds[partition] = Hold(int(epoch), token, generation, ahead, save.number, save)
        return Claim(int(epoch), checkpoint, refused)

    def _hold(self, partition: str, epoch: int) -> Hold:
        """Return the claim of that epoch, one that proves nothing where it is not the last."""
        hold = self._holds.get(partition)
        return hold if hold and hold.epoch == epoch else Hold()

    async def _moved(
        self, partition: str, epoch: int, token: str, hashes: Sequence[bytes] = (), entity: bytes = b""
    ) -> str:
        """Set the checkpoint aside, and the state of an entity that is in one of `hashes`; return where it is."""
        place = keys_of.key(partition, b":refused:" + token[:8].encode())
        keys = [keys_of.checkpoint(partition), place, place + b":state", *hashes]
        await self._owned(partition, epoch, scripts.SET_ASIDE, keys, [token, self._ttl, entity])
        return place.decode()

    async def _owned(self, partition: str, epoch: int, script: str, keys: Sequence[bytes], values: Values) -> Any:
        """Return the answer of a script that only the owner may run; raises as `_answer`."""
        return await self._answer(partition, epoch, _script(script, keys, values))

    async def _answer(self, partition: str, epoch: int, call: Call) -> Any:
        """Return what a call that only the owner may make answers; raise Fenced where this is not the owner."""
        try:
            return await self._nodes.asked(partition, call)
        except ResponseError as error:
            if str(error).startswith("FENCED"):
                raise Fenced(f"{partition}: epoch {epoch} is over, it is {str(error)[7:]} now") from None
            if str(error) == "LOST":
                raise Fenced(f"{partition}: Redis at {self._nodes.address} has lost writes of epoch {epoch}") from None
            raise


def _script(script: str, keys: Sequence[bytes], values: Values) -> Call:
    """Return the call that has a server run a script."""
    return lambda redis: redis.register_script(script)(keys, values)


async def _page(redis: Redis, key: bytes, cursor: int) -> tuple[tuple[int, list[bytes]], str]:
    """Return a page of a set, and the id of the run of Redis that answers: both by one connection."""
    async with redis.client() as one:  # no pipeline: it words errors in a way of its own
        page: Any = await one.sscan(key, cursor, count=PAGE)
        server = await one.info("server")
    return page, server["run_id"]


def _states(partition: str, hold: Hold, save: Save, bucket: int, ago: int = 0) -> bytes:
    return keys_of.states(partition, hold.generation, save.period - ago, bucket)
