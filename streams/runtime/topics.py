"""Topics as the catalogue declares them, created where they are not there yet."""

import contextlib
import logging
from collections.abc import Iterable

from kafka import KafkaAdminClient
from kafka.errors import KafkaError, TopicAlreadyExistsError

from schemas.topics import Topic

REACH_MS = 10_000


class KafkaUnavailable(Exception):
    """Kafka does not answer or does not do what it was asked; the message names its address."""


class TopicMismatch(Exception):
    """A topic exists with another number of partitions than it is declared with."""


def create_topics(kafka: str, topics: Iterable[Topic]) -> None:
    """Create what is missing of `topics` on the cluster at `kafka` and wait until each partition has a leader.

    Topics that are there stay as they are. Raises KafkaUnavailable, and TopicMismatch for a topic whose number
    of partitions is another: changing it would move keys, and their state, to other partitions.
    """
    declared = {topic.name: topic for topic in topics}
    # What matters of the client's own warnings is in the errors raised here.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    try:
        admin = KafkaAdminClient(bootstrap_servers=kafka, bootstrap_timeout_ms=REACH_MS)
    except (KafkaError, OSError) as error:
        raise KafkaUnavailable(f"Kafka at {kafka} does not answer ({_named(error)})") from None
    try:
        there = set(admin.list_topics())
        _create(admin, [topic for name, topic in declared.items() if name not in there])
        admin.wait_for_topics(list(declared))
        partitions = {one["name"]: len(one["partitions"]) for one in admin.describe_topics(list(declared))}
    except KafkaError as error:
        raise KafkaUnavailable(f"Kafka at {kafka} cannot create the topics ({_named(error)})") from None
    finally:
        admin.close()
    for name, topic in declared.items():
        if partitions[name] != topic.partitions:
            raise TopicMismatch(
                f"topic {name} has {partitions[name]} partitions, not {topic.partitions}: "
                f"set HEADRACE_PARTITIONS to what the topics have, or start with empty topics"
            )


def _create(admin: KafkaAdminClient, missing: list[Topic]) -> None:
    if not missing:
        return
    wanted = {topic.name: {"num_partitions": topic.partitions, "configs": topic.config()} for topic in missing}
    # Another process may be faster with one of them; the rest of the request is carried out.
    with contextlib.suppress(TopicAlreadyExistsError):
        admin.create_topics(wanted)


def _named(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
