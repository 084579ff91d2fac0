"""Brokers that have not heard of a topic yet are waited for."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.protocol.metadata import MetadataResponse_v0

from streams.runtime import known
from streams.runtime.known import partition_counts

AWAY: dict[str, int] = {"away": 0}


class Brokers:
    """What a client sees: each broker tells its answers in turn, the last again and again; None is no answer, and
    AWAY that of a broker which is not of its cluster at the moment."""

    def __init__(self, *answers: Sequence[dict[str, int] | None]) -> None:
        self.asked = self.updated = 0
        self._answers = [list(one) for one in answers]
        self.cluster = SimpleNamespace(brokers=lambda: [SimpleNamespace(nodeId=node) for node in range(len(answers))])

    async def send(self, node: int, request: object) -> Any:
        """Answer a request for metadata."""
        self.asked += 1
        answers = self._answers[node]
        topics = answers.pop(0) if len(answers) > 1 else answers[0]
        if topics is None:
            raise KafkaConnectionError
        if topics is AWAY:
            return MetadataResponse_v0([], [(5, name, []) for name in "ab"])
        return MetadataResponse_v0(
            [(node, "host", 9092)],
            [(0, name, [(0, one, node, [node], [node]) for one in range(count)]) for name, count in topics.items()],
        )

    async def force_metadata_update(self) -> None:
        """Ask who the brokers are."""
        self.updated += 1


def counts(brokers: Brokers) -> dict[str, int]:
    return asyncio.run(partition_counts(brokers, {"a", "b"}))


def test_a_broker_that_lags_is_waited_for() -> None:
    """One broker hears of a topic later than the others: nothing is told before it has."""
    brokers = Brokers([{"a": 4, "b": 1}], [{}, {"a": 4}, {"a": 4, "b": 1}])
    assert counts(brokers) == {"a": 4, "b": 1}
    assert brokers.asked == 6


def test_what_nobody_knows_is_told_at_once() -> None:
    """A topic that is not there is not waited for."""
    brokers = Brokers([{"a": 4, "other": 1}], [{"a": 4}])
    assert counts(brokers) == {"a": 4, "b": 0}
    assert brokers.asked == 2


def test_a_broker_that_is_away_is_not_asked_for() -> None:
    """It will know what the others know before it serves again."""
    assert counts(Brokers([None], [{"a": 4, "b": 1}])) == {"a": 4, "b": 1}


def test_brokers_that_never_agree_are_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while what only some know counts as missing."""
    monkeypatch.setattr(known, "LAG_SECONDS", 0.3)
    assert counts(Brokers([{"a": 4, "b": 1}], [{"a": 4}])) == {"a": 4, "b": 0}


def test_a_broker_that_is_put_out_of_its_cluster_is_waited_for() -> None:
    """A busy one that has missed its heartbeat tells of no broker and no partition, which are there all the same."""
    brokers = Brokers([AWAY, None, {"a": 4, "b": 1}])
    assert counts(brokers) == {"a": 4, "b": 1}
    assert brokers.updated == 2


def test_no_broker_at_all_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing is known."""
    monkeypatch.setattr(known, "LAG_SECONDS", 0.3)
    with pytest.raises(KafkaError):
        counts(Brokers([None], [AWAY]))
