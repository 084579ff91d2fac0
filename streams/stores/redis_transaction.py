"""A transaction: commands that Redis puts by one by one, and carries out together at the end."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import chain
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as Broken

Command = Sequence[bytes | int | str]


async def carried_out(
    redis: Redis, watched: bytes, check: Callable[[Redis], Awaitable[object]], commands: Iterable[Command]
) -> bool:
    """Return whether the commands were carried out: they are unless the key `watched` changed after `check` began.

    Raises what `check` raises, and the first error of a command's; an error of one while they are carried out does not
    undo the others. The connection is nobody else's meanwhile, and is closed by an error: who got it next would go on
    with what is half said.
    """
    async with redis.client() as one:
        try:
            await _said(one, "WATCH", watched)
            await check(one)
            answers = None
            for command in chain([("MULTI",)], commands, [("EXEC",)]):
                _still_connected(one)
                answers = await _said(one, *command)
        except BaseException:
            if one.connection:
                await one.connection.disconnect(nowait=True)
            raise
    for answer in answers or ():
        if isinstance(answer, Exception):
            raise answer
    return answers is not None


def _still_connected(redis: Redis) -> None:
    """Raise where redis-py would connect again: a new connection knows of no transaction, and does what it is told."""
    if not redis.connection or not redis.connection.is_connected:
        raise Broken("the connection went in the middle of a transaction")


async def _said(redis: Redis, *words: bytes | int | str) -> Any:
    say: Callable[..., Awaitable[Any]] = redis.execute_command
    return await say(*words)
