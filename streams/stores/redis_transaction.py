"""A transaction: commands that Redis puts by as they come, and carries out together at the end."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as Broken

Command = Sequence[bytes | int | str]

MANY_WORDS = 512
"""So many words of commands are sent at once, and what is left of the last: others go on between two pieces."""


async def carried_out(redis: Redis, watched: bytes, commands: Callable[[Redis], Awaitable[Iterable[Command]]]) -> bool:
    """Return whether the commands were carried out, as they are unless the key `watched` changed meanwhile.

    Raises what asking for them raises, and the first error of a command's; an error of one while they are carried out
    does not undo the others. The connection is nobody else's meanwhile, and is closed by an error: who got it next
    would go on with what is half said.
    """
    async with redis.client() as one:
        try:
            await _said(one, [("WATCH", watched)])
            asked = await commands(one)
            await _said(one, [("MULTI",)])  # alone: where it is refused, what follows would be done at once
            answers = None
            for piece in _pieces(chain(asked, [("EXEC",)])):
                answers = await _said(one, piece)
        except BaseException:
            if one.connection:
                await one.connection.disconnect(nowait=True)
            raise
    for answer in answers or ():
        if isinstance(answer, Exception):
            raise answer
    return answers is not None


def _pieces(commands: Iterable[Command]) -> Iterator[list[Command]]:
    piece: list[Command] = []
    words = 0
    for command in commands:
        piece.append(command)
        words += len(command)
        if words >= MANY_WORDS:
            yield piece
            piece, words = [], 0
    if piece:
        yield piece


async def _said(redis: Redis, commands: Sequence[Command]) -> Any:
    """Send commands on the connection there is, and return the answer to the last; raises the first error.

    A new connection, as redis-py would make it, knows of no transaction, and does what it is told.
    """
    connection = redis.connection
    if not connection or not connection.is_connected:
        raise Broken("the connection went in the middle of a transaction")
    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    answer = None
    for _ in commands:
        answer = await connection.read_response()
    return answer
