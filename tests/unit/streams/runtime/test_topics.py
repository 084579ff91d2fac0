"""What Kafka cannot say at the moment it is asked again, for a while."""

from collections.abc import Callable
from typing import Any

import pytest
from kafka.errors import (
    GroupAuthorizationFailedError,
    InvalidReplicationFactorError,
    KafkaError,
    LeaderNotAvailableError,
    UnknownBrokerIdError,
)
from kafka.structs import OffsetAndTimestamp

from schemas.topics import Topic
from streams.runtime import topics
from streams.runtime.topics import KafkaUnavailable, TopicMismatch, create_topics, record_counts

SCORES = Topic("scores", 2)


class Admin:
    """An administrator's client of one broker, which fails with `errors` in turn before it does anything."""

    def __init__(self, *errors: KafkaError) -> None:
        self.errors, self.opened, self.closed = list(errors), 0, 0

    def open(self, **_: object) -> "Admin":
        self.opened += 1
        return self

    def close(self) -> None:
        self.closed += 1

    def list_topics(self) -> list[str]:
        return []

    def create_topics(self, wanted: object) -> None:
        self._fail()

    def wait_for_topics(self, names: list[str]) -> None:
        pass

    def describe_topics(self, names: list[str]) -> list[dict[str, Any]]:
        return [{"name": SCORES.name, "partitions": [0, 1]}]

    def list_partition_offsets(self, specs: dict[Any, Any]) -> dict[Any, OffsetAndTimestamp]:
        self._fail()
        return {place: OffsetAndTimestamp(7, -1, None) for place in specs}

    def _fail(self) -> None:
        if self.errors:
            raise self.errors.pop(0)


Opened = Callable[..., Admin]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Let the next clients fail with these errors, and be patient for a third of a second."""

    def opened(*errors: KafkaError) -> Admin:
        admin = Admin(*errors)
        monkeypatch.setattr(topics, "KafkaAdminClient", admin.open)
        return admin

    monkeypatch.setattr(topics, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(topics, "REACH_MS", 300)
    monkeypatch.setattr(topics, "refusal", lambda _: None)
    return opened


def test_a_partition_without_a_leader_is_waited_for(opened: Opened) -> None:
    """As when a busy broker has missed its heartbeat: the next client finds one, and none is left open."""
    admin = opened(UnknownBrokerIdError(-1), LeaderNotAvailableError())
    assert record_counts("one:9092", [SCORES]) == {"scores": 14}
    assert admin.opened == admin.closed == 3


def test_what_stays_so_is_one_line(opened: Opened) -> None:
    """After a while it is not waited for any longer."""
    admin = opened(*[UnknownBrokerIdError(-1)] * 1000)
    with pytest.raises(KafkaUnavailable, match=r"^Kafka at one:9092 does not answer \(no broker leads it"):
        record_counts("one:9092", [SCORES])
    assert admin.opened == admin.closed > 1
    opened(*[InvalidReplicationFactorError()] * 1000)
    with pytest.raises(KafkaUnavailable, match=r"^HEADRACE_REPLICATION: Kafka at one:9092 has fewer brokers"):
        create_topics("one:9092", [SCORES])


def test_what_is_not_allowed_is_said_at_once(opened: Opened) -> None:
    """Patience gives nobody a right."""
    admin = opened(GroupAuthorizationFailedError(), LeaderNotAvailableError())
    with pytest.raises(KafkaUnavailable, match=r"^HEADRACE_KAFKA_USER: Kafka at one:9092 does not allow"):
        record_counts("one:9092", [SCORES])
    assert admin.opened == admin.closed == 1


def test_brokers_that_are_still_on_their_way_are_waited_for(opened: Opened) -> None:
    """As many copies as the brokers say themselves are made once there are so many; a wrong number is said at once."""
    admin = opened(InvalidReplicationFactorError())
    create_topics("one:9092", [SCORES])
    assert admin.opened == 2
    opened(InvalidReplicationFactorError())
    with pytest.raises(TopicMismatch, match=r"^HEADRACE_REPLICATION: there are fewer than 3 brokers"):
        create_topics("one:9092", [SCORES], replication=3)
