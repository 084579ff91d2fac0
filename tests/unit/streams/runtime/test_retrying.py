"""Kafka is waited for, but only where waiting helps."""

import asyncio

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    NodeNotReadyError,
    TopicAuthorizationFailedError,
)

from streams.runtime import retrying
from streams.runtime.retrying import until_answered


def test_what_passes_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that does not answer, is slow or starts: asked again, each failure told."""
    monkeypatch.setattr(retrying, "PAUSE", 0.001)
    failures: list[KafkaError] = [KafkaConnectionError(), KafkaTimeoutError(), NodeNotReadyError()]
    told: list[Exception] = []
    waiting = list(failures)

    async def ask() -> str:
        if waiting:
            raise waiting.pop(0)
        return "answer"

    assert asyncio.run(until_answered(ask, told.append)) == "answer"
    assert told == failures


@pytest.mark.parametrize("error", [TopicAuthorizationFailedError(), KeyError("ours")])
def test_what_does_not_pass_is_raised(error: Exception) -> None:
    """A missing permission stays missing, and a fault of ours is none of Kafka's."""
    told: list[Exception] = []

    async def ask() -> None:
        raise error

    with pytest.raises(type(error)):
        asyncio.run(until_answered(ask, told.append))
    assert told == []
