"""The state store in Redis or Valkey: a partition's keys share one hash slot, a checkpoint is one script call.

    {fraud.customer.0123456789abcdef.3}:checkpoint      hash of the `record` (offset and marks, sealed), the `number`
                                                        of the save, the `epoch` (how often the partition was
                                                        claimed), the `owner` (the last claim) and the `generation`
    {fraud.customer.0123456789abcdef.3}:89abcdef:e:<id> an entity's state bytes in generation 89abcdef, with a TTL
    {fraud.customer.0123456789abcdef.3}:refused:<claim> a checkpoint that was set aside, with a TTL; its field `entity`
                                                        names the key of the state that was unfit, if one was, which
                                                        is beside it, as …:refused:<claim>:state

A script runs alone, so a reader sees all of a checkpoint or none, and a late former owner none of his own. The
numbers of saves rise, so that one that timed out and arrives after the next changes nothing. A Redis that came
back without its last writes (a failover, an older snapshot) has a lower number than the owner has seen, or another
owner (an epoch may come twice then), and refuses: a checkpoint holds only what changed since the one before, and
a state that was lost must not be taken for a new entity's. A claim that finds no checkpoint names a new generation
after itself, so that nothing left of an earlier one is read, and nothing has to be deleted: it expires.
Time-outs are the sockets': a cancelled command would leave its reply to the next one.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ClusterDownError, OutOfMemoryError, ReadOnlyError, RedisError, ResponseError, TryAgainError

from streams.features.table import StateRefused
from streams.stores.state import Checkpoint, Claim, Fenced, States, StoreUnavailable

SOCKET_SECONDS = 5.0

PASSING = (ReadOnlyError, OutOfMemoryError, ClusterDownError, TryAgainError)
PASSING_CODES = ("NOREPLICAS", "MISCONF", "BUSY")
"""Replies of a Redis that fails over, is full or may not write for now; redis-py has no class for the latter."""

DAMAGED_CODES = ("WRONGTYPE", "hash value is not an integer")

_CLAIM = """
redis.call('HSET', KEYS[1], 'owner', ARGV[1])
local epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
if redis.call('HEXISTS', KEYS[1], 'record') == 0 then redis.call('HSET', KEYS[1], 'generation', ARGV[2]) end
local kept = redis.call('HMGET', KEYS[1], 'generation', 'number', 'record')
return {epoch, kept[1], kept[2], kept[3]}
"""

_OWNED = """
local kept = redis.call('HMGET', KEYS[1], 'epoch', 'owner', 'number')
if (tonumber(kept[1] or 0) or 0) > tonumber(ARGV[1]) then return redis.error_reply('FENCED ' .. kept[1]) end
local number = tonumber(kept[3] or 0)
if kept[2] ~= ARGV[2] or not number or number < tonumber(ARGV[3]) then return redis.error_reply('LOST') end
"""

_SAVE = f"""{_OWNED}
if number >= tonumber(ARGV[4]) then return redis.error_reply('LOST') end
for i = 2, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 5], 'PX', ARGV[5]) end
redis.call('HSET', KEYS[1], 'record', ARGV[6], 'number', ARGV[4])
"""

# A key that holds no string is no state: like an empty one it will be refused.
_LOAD = f"""{_OWNED}
local states = {{}}
for i = 2, #KEYS do
  local state = redis.pcall('GET', KEYS[i])
  states[i - 1] = type(state) == 'table' and '' or state
end
return states
"""

# Of a damaged checkpoint nothing may be taken for granted, not even that it is a hash.
_SET_ASIDE = """
local owner = redis.pcall('HGET', KEYS[1], 'owner')
if type(owner) ~= 'table' and owner ~= ARGV[1] then return redis.error_reply('LOST') end
local epoch = redis.pcall('HGET', KEYS[1], 'epoch')
redis.call('RENAME', KEYS[1], KEYS[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
if type(epoch) == 'string' and string.match(epoch, '^%d+$') and #epoch < 16 then
  redis.call('HSET', KEYS[1], 'epoch', epoch)
end
if KEYS[3] and redis.call('EXISTS', KEYS[3]) == 1 then
  redis.call('HSET', KEYS[2], 'entity', KEYS[3])
  redis.call('RENAME', KEYS[3], KEYS[4])
  redis.call('PEXPIRE', KEYS[4], ARGV[2])
end
"""


@dataclass
class Hold:
    """A claim as this process knows it: what proves it, the prefix of its entities, and how far it has saved."""

    epoch: int = 0
    token: str = ""
    generation: bytes = b""
    prefix: bytes = b""
    kept: int = 0  # the number of the last save that is known to be kept
    tried: int = 0  # of the last that was sent


class RedisStateStore:
    """Checkpoints in Redis; entities that get no event for `ttl_ms` expire, as nothing of them is in a window."""

    def __init__(self, url: str, ttl_ms: int) -> None:
        parts = urlsplit(url)
        self._address = parts.netloc.rpartition("@")[2] or parts.path  # without the password
        self._ttl = ttl_ms
        self._redis = Redis.from_url(
            url,
            socket_timeout=SOCKET_SECONDS,
            socket_connect_timeout=SOCKET_SECONDS,
            retry=Retry(NoBackoff(), 0),  # the caller repeats: it knows what may be repeated
        )
        self._holds: dict[str, Hold] = {}
        self._claim = self._redis.register_script(_CLAIM)
        self._load = self._redis.register_script(_LOAD)
        self._save = self._redis.register_script(_SAVE)
        self._set_aside = self._redis.register_script(_SET_ASIDE)

    async def claim(self, partition: str) -> Claim:
        token = uuid4().hex
        try:
            return await self._claimed(partition, token, None)
        except StateRefused:
            refused = await self._moved(partition, token)
        return await self._claimed(partition, token, refused)

    async def load(self, partition: str, epoch: int, entities: Sequence[bytes]) -> list[bytes | None]:
        if not entities:
            return []
        hold = self._hold(partition, epoch)
        keys = [_checkpoint(partition), *map(hold.prefix.__add__, entities)]
        states: list[bytes | None] = await self._owned(
            partition, epoch, lambda: self._load(keys, [epoch, hold.token, hold.kept])
        )
        return states

    async def save(self, partition: str, epoch: int, checkpoint: Checkpoint, states: States) -> None:
        hold = self._hold(partition, epoch)
        number = hold.tried = hold.tried + 1
        record = checkpoint.sealed(partition, hold.generation, number)
        keys = [_checkpoint(partition)]
        values: list[bytes | int | str] = [epoch, hold.token, hold.kept, number, self._ttl, record]
        if states:
            entities, kept = zip(*states, strict=True)
            keys, values = [*keys, *map(hold.prefix.__add__, entities)], [*values, *kept]
        await self._owned(partition, epoch, lambda: self._save(keys, values))
        hold.kept = number

    async def set_aside(self, partition: str, epoch: int, entity: bytes) -> str:
        hold = self._hold(partition, epoch)
        place: str = await self._owned(
            partition, epoch, lambda: self._moved(partition, hold.token, hold.prefix + entity)
        )
        return place

    async def read(self, partition: str, entities: Sequence[bytes]) -> list[bytes | None]:
        generation = await self._tried(lambda: self._redis.hget(_checkpoint(partition), "generation"))
        if generation is None or not entities:
            return [None] * len(entities)
        keys = [_prefix(partition, generation) + entity for entity in entities]
        states: list[bytes | None] = await self._tried(lambda: self._redis.mget(keys))
        return states

    async def ping(self) -> None:
        """Raise StoreUnavailable where Redis does not answer."""
        await self._tried(self._redis.ping)

    async def close(self) -> None:
        await self._redis.aclose()

    async def _claimed(self, partition: str, token: str, refused: str | None) -> Claim:
        """Claim; raise StateRefused where what is kept is not what was written."""
        try:
            answer = await self._tried(lambda: self._claim([_checkpoint(partition)], [token, token[:8]]))
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
        return hold if hold and hold.epoch == epoch else Hold()

    async def _moved(self, partition: str, token: str, entity: bytes | None = None) -> str:
        place = _key(partition, b":refused:" + token[:8].encode())
        keys = [_checkpoint(partition), place, *([entity, place + b":state"] if entity is not None else [])]
        await self._tried(lambda: self._set_aside(keys, [token, self._ttl]))
        return place.decode()

    async def _owned(self, partition: str, epoch: int, call: Callable[[], Awaitable[Any]]) -> Any:
        """Return the answer of a script that only the owner may run; raise Fenced where this is not the owner."""
        try:
            return await self._tried(call)
        except ResponseError as error:
            if str(error).startswith("FENCED"):
                raise Fenced(f"{partition}: epoch {epoch} is over, it is {str(error)[7:]} now") from None
            if str(error) == "LOST":
                raise Fenced(f"{partition}: Redis at {self._address} has lost writes of epoch {epoch}") from None
            raise

    async def _tried(self, call: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await call()
        except ResponseError as error:
            if isinstance(error, PASSING) or str(error).startswith(PASSING_CODES):
                raise StoreUnavailable(f"Redis at {self._address} does not serve: {error}") from None
            raise
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"Redis at {self._address} does not answer: {error}") from None


def _key(partition: str, suffix: bytes) -> bytes:
    return b"{" + partition.encode() + b"}" + suffix


def _checkpoint(partition: str) -> bytes:
    return _key(partition, b":checkpoint")


def _prefix(partition: str, generation: bytes) -> bytes:
    """Return what the keys of a generation's entities begin with."""
    return _key(partition, b":" + generation + b":e:")
