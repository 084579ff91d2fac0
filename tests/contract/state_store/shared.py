"""What the tests of every state store share: the words for a scenario, and what is done to a Redis from outside."""

from collections.abc import Awaitable, Callable

from services.rights.redis import grant, rule
from services.rights.table import table
from streams.stores.state import StateStore, TrackingStore
from streams.usecases import FRAUD
from tests.local import redis_at

TTL_MS = 60_000
IDS = [b"a", b"", "ключ".encode(), b"\x00\xff{}:\r\n", b"x" * 512]
"""Ids as bytes: empty, not ASCII, not UTF-8, with what means something to Redis."""

Scenario = Callable[[TrackingStore, str], Awaitable[None]]
Run = Callable[[Scenario], None]
Snapshot = Callable[[StateStore, str], Callable[[], None]]
"""Takes a snapshot of a partition; what it answers makes the store one that was restarted from it."""

Wipe = Callable[[StateStore, str], None]
Damage = Callable[[StateStore, str, Callable[[bytes], bytes]], None]
"""Replaces a partition's sealed checkpoint by what a function makes of it."""


def as_worker(url: str) -> str:
    """Return the URL for a user that may do what is granted to a worker, and nothing else."""
    rights = rule(table(FRAUD, 1)["worker"])
    assert rights is not None
    grant(url, {"worker": ["reset", "on", ">secret", *rights]})
    return url.replace("://", "://worker:secret@")


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


async def changed(store: TrackingStore, partition: str, epoch: int, recent: bool) -> set[bytes]:
    cursor, found = await store.changed(partition, epoch, recent)
    while cursor:
        cursor, more = await store.changed(partition, epoch, recent, cursor)
        found += more
    return set(found)
