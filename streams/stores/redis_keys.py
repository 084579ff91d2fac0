"""Where a partition's checkpoint and its entities' states lie in Redis; told in `redis.py`."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from zlib import crc32

from streams.stores.state import States

BUCKETS = 16
"""Hashes of a period. One of all entities could not be moved to another node, or expire, without a pause."""


def key(partition: str, suffix: bytes) -> bytes:
    """Return a key of the partition's; what is in braces decides the hash slot."""
    return b"{" + partition.encode() + b"}" + suffix


def checkpoint(partition: str) -> bytes:
    """Return the key of the checkpoint."""
    return key(partition, b":checkpoint")


def changed(partition: str, generation: bytes, recent: bool) -> bytes:
    """Return the key of the entities that are to be archived, in the present round or the next."""
    return key(partition, b":" + generation + (b":recent" if recent else b":old"))


def states(partition: str, generation: bytes, period: int, bucket: int) -> bytes:
    """Return the key of the hash of the states of a bucket's entities."""
    return key(partition, b":%b:states:%d:%d" % (generation, period, bucket))


def bucketed(states: States) -> Mapping[int, States]:
    """Return states by the buckets that their entities are in."""
    buckets = defaultdict[int, list[tuple[bytes, bytes]]](list)
    for state in states:
        buckets[_bucket(state[0])].append(state)
    return buckets


def places(
    partition: str, generation: bytes, period: int, entities: Sequence[bytes]
) -> tuple[list[bytes], list[bytes | int]]:
    """Return the hashes that entities may be in, those of a bucket together, the present one first; and of each
    entity the number of its first one, and its id."""
    buckets: dict[int, int] = {}
    found: list[bytes | int] = []
    for entity in entities:
        found += buckets.setdefault(_bucket(entity), 2 * len(buckets)), entity
    hashes = [states(partition, generation, one, bucket) for bucket in buckets for one in (period, period - 1)]
    return hashes, found


def _bucket(entity: bytes) -> int:
    return crc32(entity) % BUCKETS
