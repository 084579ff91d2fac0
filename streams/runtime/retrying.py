"""Kafka is waited for: what may be asked again is, for as long as no broker answers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiokafka.errors import KafkaError, KafkaTimeoutError

T = TypeVar("T")

PAUSE = 0.5  # seconds between two attempts; a connection attempt takes its time besides

OnRetry = Callable[[Exception], None]


async def until_answered(ask: Callable[[], Awaitable[T]], on_retry: OnRetry) -> T:
    """Return the answer of `ask`, tried until it works; `on_retry` is told of each attempt that failed.

    Raises the KafkaError that no patience mends, such as a missing permission.
    """
    while True:
        try:
            return await ask()
        except KafkaError as error:
            if not error.retriable and not isinstance(error, KafkaTimeoutError):
                raise
            on_retry(error)
        await asyncio.sleep(PAUSE)
