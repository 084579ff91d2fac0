"""Model swap: what is announced is put to use if it may be, and refused without harm if it may not."""

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import CorruptRecordException

from schemas.codec import encode
from streams.agents import models
from streams.agents.models import ModelFeed
from streams.agents.scoring import ServingModel
from streams.metrics import Metrics
from streams.models.lessons import Lessons
from streams.runtime.newest import Logged
from streams.usecases import FRAUD

KEY = b"k" * 32


def announced(key: bytes = KEY, feature_set: str = FRAUD.features.fingerprint, created_at: int = 9_000) -> bytes:
    lessons = Lessons(FRAUD.recipes, FRAUD.features.names, feature_set)
    lessons.learners[FRAUD.recipes[0]].examples_learnt = 5
    return encode(lessons.announce(created_at, key))


def taken(value: bytes) -> tuple[list[ServingModel], float | None]:
    """What is put to use after a record of the model topic, and how many were refused."""
    swapped: list[ServingModel] = []
    metrics = Metrics("worker")
    feed = ModelFeed(FRAUD, "127.0.0.1:1", "fraud.models", KEY, metrics, swapped.append)
    asyncio.run(feed._take(Logged(7, value)))  # as if it had come from Kafka
    return swapped, metrics.registry.get_sample_value("headrace_models_refused_total")


def test_a_sealed_model_is_put_to_use() -> None:
    """A snapshot signed with our key, of our features, serves under its own id."""
    (model,), refused = taken(announced())
    assert (model.model_id, model.created_at, refused) == ("logistic@5", 9_000, 0)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{}",
        b'{"model_id":"\xff"}',
        b'{"x":' + b"[" * 60_000,
        announced(key=b"x" * 32),
        announced(feature_set="0" * 16),
        announced().replace(b'"examples_learnt":5', b'"examples_learnt":6'),
    ],
    ids=["null", "no fields", "not UTF-8", "a nesting bomb", "another key", "other features", "altered"],
)
def test_anything_else_is_refused_and_counted(value: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is swapped, one more is counted, a line names its place, and the feed lives to read the next."""
    assert taken(value) == ([], 1)
    (line,) = [record.message for record in caplog.records]
    assert line.startswith("fraud.models/0 at offset 7: refused, ")


def test_at_the_start_the_newest_sound_model_serves() -> None:
    """A damaged newest record costs the models since the last sound one, and nothing more."""
    swapped: list[ServingModel] = []

    async def newest_first() -> AsyncGenerator[Logged, None]:
        for offset, value in ((9, announced(key=b"x" * 32)), (8, b"{"), (5, announced(created_at=2))):
            yield Logged(offset, value)
        raise AssertionError("looked further than it had to")

    feed = ModelFeed(FRAUD, "127.0.0.1:1", "fraud.models", KEY, Metrics("worker"), swapped.append)
    asyncio.run(feed._take_newest(newest_first()))
    assert [model.created_at for model in swapped] == [2]


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
        return SimpleNamespace(offset=0, value=one)


@pytest.mark.parametrize("error", [CorruptRecordException("too bad"), RuntimeError("too bad")])
def test_an_error_does_not_end_the_swaps(monkeypatch: Any, caplog: Any, error: Exception) -> None:
    """What comes after an error is put to use, the error is told, and no model counts as refused."""
    swapped = asyncio.Queue[ServingModel]()
    metrics = Metrics("worker")
    feed = ModelFeed(FRAUD, "127.0.0.1:1", "fraud.models", KEY, metrics, swapped.put_nowait)
    monkeypatch.setattr(models, "RETRY_SECONDS", 0.0)

    async def scenario() -> list[int]:
        feed._consumer = Troubled(error, announced(created_at=1), error, announced(created_at=2))
        following = asyncio.create_task(feed._follow())
        async with asyncio.timeout(10):
            found = [(await swapped.get()).created_at for _ in range(2)]
        following.cancel()
        return found

    assert asyncio.run(scenario()) == [1, 2]
    told = [record for record in caplog.records if "fraud.models: not followed, trying again: " in record.message]
    assert len(told) == 2
    assert "too bad" in told[0].message
    assert metrics.registry.get_sample_value("headrace_models_refused_total") == 0
