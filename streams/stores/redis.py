"""The state store in Redis or Valkey: a partition's keys share one hash slot, a checkpoint is one script call.

    {fraud.customer.0123456789abcdef.3}:epoch        who owns the partition
    {fraud.customer.0123456789abcdef.3}:checkpoint   hash of `offset` and `marks`, and the `number` of the save
    {fraud.customer.0123456789abcdef.3}:e:<id>       an entity's state bytes, with a TTL

A script runs alone, so a reader sees all of a checkpoint or none, and a late former owner none of his own. The
numbers of saves rise, so that one that timed out and arrives after the next changes nothing.
Time-outs are the sockets': a cancelled command would leave its reply to the next one.
"""

from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from streams.stores.state import Checkpoint, Claim, Fenced, States, StoreUnavailable

SOCKET_SECONDS = 5.0

_SAVE = """
local epoch = redis.call('GET', KEYS[1])
if epoch ~= ARGV[1] then return redis.error_reply('FENCED ' .. tostring(epoch)) end
if tonumber(redis.call('HGET', KEYS[2], 'number') or 0) >= tonumber(ARGV[5]) then return 0 end
for i = 3, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 3], 'PX', ARGV[4]) end
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
        self._saves = count(1)
        self._save = self._redis.register_script(_SAVE)

    async def claim(self, partition: str) -> Claim:
        epoch = await self._tried(lambda: self._redis.incr(_key(partition, b":epoch")))
        offset, marks = await self._tried(
            lambda: self._redis.hmget(_key(partition, b":checkpoint"), ["offset", "marks"])
        )
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
        values: list[bytes | int] = [epoch, checkpoint.offset, checkpoint.marks, self._ttl, number]
        if states:
            entities, kept = zip(*states, strict=True)
            keys, values = [*keys, *map(prefix.__add__, entities)], [*values, *kept]
        try:
            await self._tried(lambda: self._save(keys, values))
        except ResponseError as error:
            if str(error).startswith("FENCED"):
                raise Fenced(f"{partition}: epoch {epoch} is over, it is {str(error)[7:]} now") from None
            raise

    async def ping(self) -> None:
        """Raise StoreUnavailable where Redis does not answer."""
        await self._tried(self._redis.ping)

    async def close(self) -> None:
        await self._redis.aclose()

    async def _tried(self, call: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await call()
        except ResponseError:
            raise
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"Redis at {self._address} does not answer: {error}") from None


def _key(partition: str, suffix: bytes) -> bytes:
    return b"{" + partition.encode() + b"}" + suffix
