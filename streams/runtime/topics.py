"""Topics as the catalogue declares them, created where they are not there yet."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import TypeVar

from aiokafka import errors
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import (
    AuthorizationError,
    GroupIdNotFoundError,
    InvalidReplicationFactorError,
    KafkaError,
    TopicAlreadyExistsError,
    UnknownBrokerIdError,
)

from schemas.topics import Topic
from streams.runtime.connection import connection
from streams.runtime.refusal import refusal
from streams.settings import Kafka

REACH_MS = 10_000
POLL_SECONDS = 0.1
BROKERS_DEFAULT = -1

NOT_ALLOWED = (
    AuthorizationError,
    errors.TopicAuthorizationFailedError,
    errors.GroupAuthorizationFailedError,
    errors.ClusterAuthorizationFailedError,
)
"""What either client is told where its user lacks a right."""

T = TypeVar("T")


class KafkaUnavailable(Exception):
    """Kafka does not answer or does not do what it was asked; the message names its address."""


def unavailable(kafka: Kafka, error: Exception) -> KafkaUnavailable:
    """Return what to raise where a client gave up with `error`: which setting is refused, if that is why."""
    if (why := _not_allowed(kafka, error)) is None:
        why = refusal(kafka) or f"Kafka at {kafka} does not answer ({_first_line(error)})"
    return KafkaUnavailable(why)


def unwelcome(kafka: Kafka, error: Exception) -> KafkaUnavailable:
    """Return what to raise where a consumer group does not take this process in."""
    if isinstance(error, errors.InvalidSessionTimeoutError):
        return KafkaUnavailable(f"HEADRACE_SESSION_SECONDS: Kafka at {kafka} does not allow a session of that length")
    why = f"Kafka at {kafka} does not let this process be of its group ({_first_line(error)})"
    return KafkaUnavailable(_not_allowed(kafka, error) or why)


def _not_allowed(kafka: Kafka, error: Exception) -> str | None:
    why = _first_line(error)
    if isinstance(error, InvalidReplicationFactorError):
        return f"HEADRACE_REPLICATION: Kafka at {kafka} has fewer brokers than a topic is to have copies"
    if isinstance(error, NOT_ALLOWED) or "AuthorizationFailed" in why:  # kafka-python wraps some
        return f"HEADRACE_KAFKA_USER: Kafka at {kafka} does not allow this process that ({why})"
    return None


def _first_line(error: Exception) -> str:
    if isinstance(error, UnknownBrokerIdError):  # kafka-python sends to broker -1 what no broker leads
        return "no broker leads it at the moment"
    return (str(error) or type(error).__name__).splitlines()[0]


class TopicMismatch(Exception):
    """A topic exists with another number of partitions than it is declared with."""


@contextmanager
def answering(kafka: Kafka) -> Iterator[None]:
    """Raise KafkaUnavailable, which names the brokers, where aiokafka gives up inside the block."""
    try:
        yield
    except errors.KafkaError as error:
        raise unavailable(kafka, error) from None


def create_topics(kafka: Kafka, topics: Iterable[Topic], replication: int = BROKERS_DEFAULT) -> None:
    """Create what is missing of `topics` on the cluster at `kafka` and wait until each partition has a leader.

    Each partition is kept by `replication` brokers, a majority of which must have a record before it counts as
    written. Topics that are there stay as they are. Raises KafkaUnavailable, and TopicMismatch where there are too
    few brokers and for a topic whose number of partitions is another: changing it would move keys, and their
    state, to other partitions.
    """
    declared = {topic.name: topic for topic in topics}

    def created(admin: KafkaAdminClient) -> dict[str, int]:
        there = set(admin.list_topics())
        _create(admin, [topic for name, topic in declared.items() if name not in there], replication)
        admin.wait_for_topics(list(declared))
        return _counted(admin, declared)

    verify(declared.values(), asked(kafka, created))


def verify(topics: Iterable[Topic], partitions: Mapping[str, int]) -> None:
    """Raise TopicMismatch for a topic that has not as many of `partitions`, by name, as it is declared with."""
    for topic in topics:
        if partitions[topic.name] != topic.partitions:
            raise TopicMismatch(
                f"topic {topic.name} has {partitions[topic.name]} partitions, not {topic.partitions}: "
                f"set HEADRACE_PARTITIONS to what the topics have, or start with empty topics"
            )


def check_topics(kafka: Kafka, topics: Iterable[Topic]) -> None:
    """Raise TopicMismatch unless every topic is on the cluster at `kafka` as it is declared; KafkaUnavailable."""
    declared = {topic.name: topic for topic in topics}

    def described(admin: KafkaAdminClient) -> dict[str, int]:
        missing = sorted(declared.keys() - set(admin.list_topics()))
        if missing:
            raise TopicMismatch(f"there is no topic {missing[0]}")
        return {one["name"]: len(one["partitions"]) for one in admin.describe_topics(list(declared))}

    verify(declared.values(), asked(kafka, described))


def record_counts(kafka: Kafka, topics: Iterable[Topic]) -> dict[str, int]:
    """Return how many records each of `topics` has ever had, by name. Raises KafkaUnavailable."""
    partitions = [TopicPartition(topic.name, number) for topic in topics for number in range(topic.partitions)]
    latest = dict.fromkeys(partitions, OffsetSpec.LATEST)
    counts: dict[str, int] = {}
    for partition, end in asked(kafka, lambda admin: admin.list_partition_offsets(latest)).items():
        counts[partition.topic] = counts.get(partition.topic, 0) + end.offset
    return counts


def group_members(kafka: Kafka, group: str) -> int:
    """Return how many processes are in a consumer group. Raises KafkaUnavailable."""

    def members(admin: KafkaAdminClient) -> int:
        try:
            return len(admin.describe_groups([group])[group]["members"])
        except GroupIdNotFoundError:
            return 0

    return asked(kafka, members)


def asked(kafka: Kafka, question: Callable[[KafkaAdminClient], T]) -> T:
    """Return the answer to a `question` by an administrator's client, asked again while brokers or leaders change.

    It may be asked several times, each time by a new client, for some ten seconds. Raises KafkaUnavailable.
    """
    deadline = time.monotonic() + REACH_MS / 1000
    while True:
        try:
            with _administration(kafka) as admin:
                return question(admin)
        except (KafkaError, OSError) as error:
            if not _passing(error) or time.monotonic() > deadline:
                raise unavailable(kafka, error) from None
        time.sleep(POLL_SECONDS)


@contextmanager
def _administration(kafka: Kafka) -> Iterator[KafkaAdminClient]:
    # What matters of the client's own warnings is in the errors raised here.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    options = connection(kafka)
    # Else it would try for as long as it may, and a server may lock a user out that comes so often in vain.
    if "ssl_context" in options and (why := refusal(kafka)):
        raise KafkaUnavailable(why)
    with closing(KafkaAdminClient(**options, bootstrap_timeout_ms=REACH_MS)) as admin:
        yield admin


def _passing(error: Exception) -> bool:
    if isinstance(error, UnknownBrokerIdError | InvalidReplicationFactorError):
        return True
    return isinstance(error, KafkaError) and error.retriable


def _counted(admin: KafkaAdminClient, topics: Iterable[str]) -> dict[str, int]:
    """Return how many partitions topics that are there have; another broker may be asked each time, and lag."""
    deadline = time.monotonic() + REACH_MS / 1000
    while True:
        counts = {one["name"]: len(one["partitions"]) for one in admin.describe_topics(list(topics))}
        if all(counts.values()) or time.monotonic() > deadline:
            return counts
        time.sleep(POLL_SECONDS)


def _create(admin: KafkaAdminClient, missing: list[Topic], replication: int) -> None:
    if not missing:
        return
    majority = {} if replication == BROKERS_DEFAULT else {"min.insync.replicas": str(replication // 2 + 1)}
    wanted = {
        topic.name: {
            "num_partitions": topic.partitions,
            "replication_factor": replication,
            "configs": topic.config() | majority,
        }
        for topic in missing
    }
    try:
        # Another process may be faster with one of them; the rest of the request is carried out.
        with suppress(TopicAlreadyExistsError):
            admin.create_topics(wanted)
    except AuthorizationError:
        names = ", ".join(topic.name for topic in missing)
        raise TopicMismatch(
            f"there is no topic {names} that HEADRACE_KAFKA_USER may see, nor may it create topics"
        ) from None
    except InvalidReplicationFactorError:
        if replication == BROKERS_DEFAULT:  # of brokers that are not all there yet
            raise
        raise TopicMismatch(
            f"HEADRACE_REPLICATION: there are fewer than {replication} brokers to keep topic {missing[0].name}"
        ) from None
