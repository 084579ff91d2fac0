"""The state store in Redis or Valkey: a partition's keys share one hash slot, a checkpoint is one transaction.

    {fraud.customer.0123456789abcdef.3}:checkpoint      hash of the `record` (offset and marks, sealed), the `number`
                                                        of the save, the `epoch` (how often the partition was
                                                        claimed), the `owner` (the last claim) and the `generation`
    {fraud.customer.0123456789abcdef.3}:89abcdef:e:<id> an entity's state bytes in generation 89abcdef, with a TTL
    {fraud.customer.0123456789abcdef.3}:89abcdef:recent set of the entities that were saved since the last round of
                                                        archiving began; `…:old`, of those that it is about
    {fraud.customer.0123456789abcdef.3}:refused:<claim> a checkpoint that was set aside, with a TTL; its field `entity`
                                                        names the key of the state that was unfit, if one was, which
                                                        is beside it, as …:refused:<claim>:state

A reader sees all of a checkpoint or none: its states are sent in pieces, which Redis puts by until the last (`MULTI`),
and so it takes in a megabyte while it serves others. A script checks first whether this is the owner, and nothing is
kept if the checkpoint changes after that (`WATCH`), so nothing of a late former owner's is. The
numbers of saves rise, so that one that timed out and arrives after the next changes nothing. A Redis that came
back without its last writes (a failover, an older snapshot) has a lower number than the owner has seen, or another
owner (an epoch may come twice then), and refuses: a checkpoint holds only what changed since the one before, and
a state that was lost must not be taken for a new entity's. A claim that finds no checkpoint names a new generation
after itself, so that nothing left of an earlier one is read, and nothing has to be deleted: it expires.
Time-outs are the sockets': a cancelled command would leave its reply to the next one. In a cluster each partition is
one master's alone (`redis_nodes.py`), and what is said of Redis here holds for that master.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from streams.features.table import StateRefused
from streams.stores import redis_scripts as scripts
from streams.stores.redis_nodes import Call, nodes
from streams.stores.redis_transaction import Command, carried_out
from streams.stores.state import Checkpoint, Claim, Fenced, States, StoreUnavailable

Values = Sequence[bytes | int | str]

DAMAGED_CODES = ("WRONGTYPE", "hash value is not an integer")

PAGE = 1000  # entities in one answer

PIECE = 128
"""States in one command: others are served between two."""

TRIES = 3
"""Of a save: what changes the checkpoint meanwhile is another's claim, or a save of ours that had timed out."""


@dataclass
class Hold:
    """A claim as this process knows it: what proves it, the prefix of its entities, and how far it has saved."""

    epoch: int = 0
    token: str = ""
    generation: bytes = b""
    prefix: bytes = b""
    kept: int = 0  # the number of the last save that is known to be kept
    tried: int = 0  # of the last that was sent
    scanned: str = ""  # the run of Redis in which the scan of what has changed was begun


class RedisStateStore:
    """Checkpoints in Redis; entities that get no event for `ttl_ms` expire, as nothing of them is in a window."""

    def __init__(self, url: str, ttl_ms: int) -> None:
        self._nodes = nodes(url)
        self._ttl = ttl_ms
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
        keys = [_checkpoint(partition), *map(hold.prefix.__add__, entities)]
        states: list[bytes | None] = await self._owned(
            partition, epoch, scripts.LOAD, keys, [epoch, hold.token, hold.kept]
        )
        return states

    async def save(self, partition: str, epoch: int, checkpoint: Checkpoint, states: States) -> None:
        await self._write(partition, epoch, checkpoint, states)

    async def put(self, partition: str, epoch: int, states: States) -> None:
        await self._write(partition, epoch, None, states)

    async def _write(self, partition: str, epoch: int, checkpoint: Checkpoint | None, states: States) -> None:
        hold = self._hold(partition, epoch)
        number = hold.tried = hold.tried + 1
        place = _checkpoint(partition)

        async def check(redis: Redis) -> None:
            await redis.register_script(scripts.MAY_SAVE)([place], [epoch, hold.token, hold.kept, number])

        async def write(redis: Redis) -> None:
            for _ in range(TRIES):
                if await carried_out(redis, place, check, self._pieces(partition, hold, number, checkpoint, states)):
                    return
            raise StoreUnavailable(f"{partition}: its checkpoint changes all the time")

        await self._answer(partition, epoch, write)
        hold.kept = number

    def _pieces(
        self, partition: str, hold: Hold, number: int, checkpoint: Checkpoint | None, states: States
    ) -> Iterator[Command]:
        """Yield the commands of a save, the one that makes it count with the last states."""
        if checkpoint and states:
            recent = _changed(partition, hold.generation, recent=True)
            yield "SADD", recent, *(entity for entity, _ in states)
            yield "PEXPIRE", recent, self._ttl
        pieces = [states[start : start + PIECE] for start in range(0, len(states), PIECE)] or [[]]
        for piece in pieces[:-1]:
            keys = [hold.prefix + entity for entity, _ in piece]
            yield "EVAL", scripts.PUT, len(keys), *keys, self._ttl, *(state for _, state in piece)
        keys = [_checkpoint(partition), *(hold.prefix + entity for entity, _ in pieces[-1])]
        record = checkpoint.sealed(partition, hold.generation, number) if checkpoint else b""
        yield "EVAL", scripts.SAVE, len(keys), *keys, self._ttl, number, record, *(state for _, state in pieces[-1])

    async def set_aside(self, partition: str, epoch: int, entity: bytes) -> str:
        hold = self._hold(partition, epoch)
        return await self._moved(partition, epoch, hold.token, hold.prefix + entity)

    async def read(self, partition: str, entities: Sequence[bytes]) -> list[bytes | None]:
        generation = await self._nodes.asked(partition, lambda redis: redis.hget(_checkpoint(partition), "generation"))
        if generation is None or not entities:
            return [None] * len(entities)
        keys = [_prefix(partition, generation) + entity for entity in entities]
        states: list[bytes | None] = await self._nodes.asked(partition, lambda redis: redis.mget(keys))
        return states

    async def begin_round(self, partition: str, epoch: int) -> None:
        hold = self._hold(partition, epoch)
        changed = [_changed(partition, hold.generation, recent) for recent in (True, False)]
        values: list[int | str] = [epoch, hold.token, hold.kept, self._ttl]
        await self._owned(partition, epoch, scripts.BEGIN_ROUND, [_checkpoint(partition), *changed], values)

    async def changed(self, partition: str, epoch: int, recent: bool, cursor: int = 0) -> tuple[int, list[bytes]]:
        hold = self._hold(partition, epoch)
        key = _changed(partition, hold.generation, recent)
        (then, entities), run = await self._nodes.asked(partition, lambda redis: _page(redis, key, cursor))
        if cursor and run != hold.scanned:
            # A cursor means something to the process alone that gave it; another would pass entities over.
            raise StoreUnavailable(f"{partition}: Redis has been started, or taken over from, between two pages")
        hold.scanned = run
        # Who owns the partition after it was read has read of its own round.
        await self._owned(partition, epoch, scripts.LOAD, [_checkpoint(partition)], [epoch, hold.token, hold.kept])
        return int(then), list(entities)

    async def end_round(self, partition: str, epoch: int) -> None:
        hold = self._hold(partition, epoch)
        keys = [_checkpoint(partition), _changed(partition, hold.generation, recent=False)]
        await self._owned(partition, epoch, scripts.END_ROUND, keys, [epoch, hold.token, hold.kept])

    async def ping(self) -> None:
        """Raise StoreUnavailable where Redis, or one of its masters, does not answer."""
        await self._nodes.ping()

    async def close(self) -> None:
        await self._nodes.close()

    async def _claimed(self, partition: str, token: str, refused: str | None) -> Claim:
        """Claim; raise StateRefused where what is kept is not what was written."""
        try:
            answer = await self._ran(partition, scripts.CLAIM, [_checkpoint(partition)], [token, token[:8]])
        except ResponseError as error:
            if any(code in str(error) for code in DAMAGED_CODES):
                raise StateRefused(str(error)) from None
            raise
        epoch, generation, number, record = answer
        if number and not number.isdigit():
            raise StateRefused("damaged (its number is none)")
        kept = int(number or 0)
        checkpoint = None if record is None else Checkpoint.opened(record, partition, generation, kept)
        self._holds[partition] = Hold(int(epoch), token, generation, _prefix(partition, generation), kept, kept)
        return Claim(int(epoch), checkpoint, refused)

    def _hold(self, partition: str, epoch: int) -> Hold:
        """Return the claim of that epoch, one that proves nothing where it is not the last."""
        hold = self._holds.get(partition)
        return hold if hold and hold.epoch == epoch else Hold(prefix=_prefix(partition, b""))

    async def _moved(self, partition: str, epoch: int, token: str, entity: bytes | None = None) -> str:
        place = _key(partition, b":refused:" + token[:8].encode())
        keys = [_checkpoint(partition), place, *([entity, place + b":state"] if entity is not None else [])]
        await self._owned(partition, epoch, scripts.SET_ASIDE, keys, [token, self._ttl])
        return place.decode()

    async def _owned(self, partition: str, epoch: int, script: str, keys: Sequence[bytes], values: Values) -> Any:
        """Return the answer of a script that only the owner may run; raises as `_answer`."""
        return await self._answer(partition, epoch, lambda redis: redis.register_script(script)(keys, values))

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

    async def _ran(self, partition: str, script: str, keys: Sequence[bytes], values: Values) -> Any:
        return await self._nodes.asked(partition, lambda redis: redis.register_script(script)(keys, values))


async def _page(redis: Redis, key: bytes, cursor: int) -> tuple[tuple[int, list[bytes]], str]:
    """Return a page of a set, and the id of the run of Redis that answers: both by one connection."""
    async with redis.client() as one:  # no pipeline: it words errors in a way of its own
        page: Any = await one.sscan(key, cursor, count=PAGE)
        server = await one.info("server")
    return page, server["run_id"]


def _key(partition: str, suffix: bytes) -> bytes:
    return b"{" + partition.encode() + b"}" + suffix


def _checkpoint(partition: str) -> bytes:
    return _key(partition, b":checkpoint")


def _prefix(partition: str, generation: bytes) -> bytes:
    """Return what the keys of a generation's entities begin with."""
    return _key(partition, b":" + generation + b":e:")


def _changed(partition: str, generation: bytes, recent: bool) -> bytes:
    return _key(partition, b":" + generation + (b":recent" if recent else b":old"))
