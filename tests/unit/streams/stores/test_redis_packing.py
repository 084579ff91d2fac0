"""Long commands are the bytes that redis-py would write."""

import pytest
from redis.asyncio import ConnectionPool

from streams.stores.redis_packing import MANY, pack_quickly


@pytest.mark.parametrize("url", ["redis://h:1", "rediss://h:1", "unix:///s"])
@pytest.mark.parametrize("count", [2, MANY, 500])
def test_a_command_is_what_redis_py_writes(url: str, count: int) -> None:
    """Bytes, text and numbers, few or many, whatever the connection."""
    theirs = ConnectionPool.from_url(url)
    ours = ConnectionPool.from_url(url)
    pack_quickly(ours)
    arguments = ["EVALSHA", "ab" * 20, 3, *(bytes([at % 256]) * (at * 40) for at in range(count))]
    assert b"".join(ours.make_connection().pack_command(*arguments)) == b"".join(
        theirs.make_connection().pack_command(*arguments)
    )
