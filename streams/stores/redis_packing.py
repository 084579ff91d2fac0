"""Commands of thousands of arguments written several times as fast as redis-py does, which copies what it has so far
every 6,000 bytes: while a checkpoint is being written no event is scored."""

from collections.abc import Sequence
from typing import Any, cast

from redis.asyncio import ConnectionPool

MANY = 64  # arguments


def pack(arguments: Sequence[bytes]) -> bytes:
    r"""Return a command as RESP, the array of its arguments.

    >>> pack([b"GET", b"key"])
    b'*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n'
    """
    pieces = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        pieces += (b"$%d\r\n" % len(argument), argument, b"\r\n")
    return b"".join(pieces)


def pack_quickly(pool: ConnectionPool) -> None:
    """Have the pool's connections, of whatever kind, write long commands by `pack`."""
    kind = pool.connection_class

    class Packing(kind):  # type: ignore[misc, valid-type]
        def pack_command(self, *arguments: Any) -> list[bytes]:
            if len(arguments) < MANY:
                return cast(list[bytes], super().pack_command(*arguments))
            return [pack([one if isinstance(one, bytes) else self.encoder.encode(one) for one in arguments])]

    pool.connection_class = Packing
