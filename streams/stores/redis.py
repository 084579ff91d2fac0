"""The state store in Redis or Valkey: a partition's keys share one hash slot, a checkpoint is one script call.

    {fraud.customer.0123456789abcdef.3}:epoch        how often the partition was claimed
    {fraud.customer.0123456789abcdef.3}:checkpoint   hash of `offset` and `marks`, the `number` of the save, and the
                                                     `owner`: the store object that claimed last
    {fraud.customer.0123456789abcdef.3}:e:<id>       an entity's state bytes, with a TTL

A script runs alone, so a reader sees all of a checkpoint or none, and a late former owner none of his own. The
numbers of saves rise, so that one that timed out and arrives after the next changes nothing. A Redis that came
back without its last writes (a failover, an older snapshot) has a lower number than the owner has seen, or another
owner (an epoch may come twice then), and refuses: a checkpoint holds only what changed since the one before.
Time-outs are the sockets': a cancelled command would leave its reply to the next one.
"""

from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ClusterDownError, OutOfMemoryError, ReadOnlyError, RedisError, ResponseError, TryAgainError

from streams.stores.state import Checkpoint, Claim, Fenced, States, StoreUnavailable

SOCKET_SECONDS = 5.0

PASSING = (ReadOnlyError, OutOfMemoryError, ClusterDownError, TryAgainError)
PASSING_CODES = ("NOREPLICAS", "MISCONF", "BUSY")
"""Replies of a Redis that fails over, is full or may not write for now; redis-py has no class for the latter."""

_CLAIM = """
local epoch = redis.call('INCR', KEYS[1])
redis.call('HSET', KEYS[2], 'owner', ARGV[1])
local kept = redis.call('HMGET', KEYS[2], 'offset', 'marks', 'number')
return {epoch, kept[1], kept[2], kept[3]}
"""

_SAVE = """
local epoch = redis.call('GET', KEYS[1])
if epoch ~= ARGV[1] then return redis.error_reply('FENCED ' .. tostring(epoch)) end
local kept = redis.call('HMGET', KEYS[2], 'owner', 'number')
local number = tonumber(kept[2] or 0)
if kept[1] ~= ARGV[6] or number < tonumber(ARGV[7]) then return redis.error_reply('LOST') end
if number >= tonumber(ARGV[5]) then return 0 end
for i = 3, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 5], 'PX', ARGV[4]) end
redis.call('HSET', KEYS[2], 'offset', ARGV[2], 'marks', ARGV[3], 'number', ARGV[5])
return #KEYS - 2
"""


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
        self._owner = uuid4().hex
        self._saves = count(1)
        self._kept: dict[str, int] = {}  # the number of the last save of each partition that is known to be kept
        self._claim = self._redis.register_script(_CLAIM)
        self._save = self._redis.register_script(_SAVE)

    async def claim(self, partition: str) -> Claim:
        keys = [_key(partition, b":epoch"), _key(partition, b":checkpoint")]
        epoch, offset, marks, number = await self._tried(lambda: self._claim(keys, [self._owner]))
        self._kept[partition] = int(number or 0)
        return Claim(int(epoch), None if offset is None else Checkpoint(int(offset), marks or b""))

    async def load(self, partition: str, entities: Sequence[bytes]) -> list[bytes | None]:
        if not entities:
            return []
        prefix = _key(partition, b":e:")
        states: list[bytes | None] = await self._tried(
            lambda: self._redis.mget([prefix + entity for entity in entities])
        )
        return states

    async def save(self, partition: str, epoch: int, checkpoint: Checkpoint, states: States) -> None:
        prefix = _key(partition, b":e:")
        keys = [_key(partition, b":epoch"), _key(partition, b":checkpoint")]
        number = (epoch << 32) + next(self._saves)
        values: list[bytes | int | str] = [epoch, checkpoint.offset, checkpoint.marks, self._ttl, number]
        values += [self._owner, self._kept.get(partition, 0)]
        if states:
            entities, kept = zip(*states, strict=True)
            keys, values = [*keys, *map(prefix.__add__, entities)], [*values, *kept]
        try:
            await self._tried(lambda: self._save(keys, values))
        except ResponseError as error:
            if str(error).startswith("FENCED"):
                raise Fenced(f"{partition}: epoch {epoch} is over, it is {str(error)[7:]} now") from None
            if str(error) == "LOST":
                raise Fenced(f"{partition}: Redis at {self._address} has lost writes of epoch {epoch}") from None
            raise
        self._kept[partition] = number

    async def ping(self) -> None:
        """Raise StoreUnavailable where Redis does not answer."""
        await self._tried(self._redis.ping)

    async def close(self) -> None:
        await self._redis.aclose()

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
