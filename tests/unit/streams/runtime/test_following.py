"""Following a topic: no error ends it."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import CorruptRecordException

from streams.runtime import following
from streams.runtime.following import Follower
from streams.runtime.newest import Logged


class Troubled:
    """A consumer whose every other record is an error of Kafka's, or of ours."""

    def __init__(self, *said: bytes | Exception) -> None:
        self._said = list(said)

    def __aiter__(self) -> "Troubled":
        return self

    async def __anext__(self) -> Any:
        if not self._said:
            await asyncio.Event().wait()
        one = self._said.pop(0)
        if isinstance(one, Exception):
            raise one
        return SimpleNamespace(topic="a", offset=3, value=one, key=None)


@pytest.mark.parametrize("error", [CorruptRecordException("too bad"), RuntimeError("too bad")])
def test_an_error_does_not_end_the_following(monkeypatch: Any, caplog: Any, error: Exception) -> None:
    """What comes after an error is taken, and the error is told with the topics."""
    taken = asyncio.Queue[tuple[str, Logged]]()
    monkeypatch.setattr(following, "RETRY_SECONDS", 0.0)

    async def scenario() -> list[tuple[str, Logged]]:
        follower = Follower("127.0.0.1:1", ["a", "b"], lambda topic, record: taken.put((topic, record)))
        follower._consumer = Troubled(error, b"1", error, b"2")
        task = asyncio.create_task(follower._follow())
        async with asyncio.timeout(10):
            found = [await taken.get() for _ in range(2)]
        task.cancel()
        return found

    assert asyncio.run(scenario()) == [("a", Logged(3, b"1")), ("a", Logged(3, b"2"))]
    told = [record.message for record in caplog.records]
    assert len(told) == 2
    assert all(line.startswith("a, b: not followed, trying again: ") and "too bad" in line for line in told)
