"""One deployment, one feature set: another one is started beside it, under a name of its own."""

import logging
import time
from collections.abc import Mapping
from contextlib import closing

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from schemas.topics import Topics
from streams.runtime.connection import connection
from streams.runtime.hop import features_of
from streams.runtime.topics import REACH_MS, unavailable
from streams.settings import Kafka
from streams.usecases import UseCase

PATIENCE_SECONDS = 5.0


class DeploymentRefused(Exception):
    """A process does not fit the deployment that it was to join; the message says why, and what to do."""


def refuse_misfit(kafka: Kafka, usecase: UseCase, topics: Topics) -> None:
    """Raise DeploymentRefused unless a process of `usecase` may join its deployment; KafkaUnavailable.

    Not where the newest hop messages are of another feature set: workers would not understand each other, and bury
    what the others pass on. And no deployment publishes before it has scored anything: its first scores are old news.
    """
    _quiet()
    try:
        _check_features(_newest(kafka, topics), usecase.features.fingerprint)
        if topics.published and not _has_scored(kafka, usecase, topics):
            raise DeploymentRefused(
                f"HEADRACE_PUBLISH: {usecase.full_name} has not scored anything yet, let it catch up without it first"
            )
    except (KafkaError, OSError) as error:
        raise unavailable(kafka, error) from None


def _quiet() -> None:
    # What matters of the client's own warnings is in the errors raised here.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)


def _check_features(newest: Mapping[TopicPartition, bytes], ours: str) -> None:
    for place, message in newest.items():
        found = features_of(message)
        if found is not None and found != ours:
            raise DeploymentRefused(
                f"{place.topic} has messages of feature set {found}, this is {ours}: start it beside the "
                f"deployment that runs, under a name of its own (HEADRACE_DEPLOYMENT)"
            )


def _has_scored(kafka: Kafka, usecase: UseCase, topics: Topics) -> bool:
    with closing(_consumer(kafka, group_id=usecase.group("stages"))) as consumer:
        last = topics.hops[-1] if topics.hops else topics.events
        places = (TopicPartition(last.name, number) for number in range(last.partitions))
        return any(consumer.committed(place) is not None for place in places)


def _newest(kafka: Kafka, topics: Topics) -> dict[TopicPartition, bytes]:
    """Return the newest record of each partition of the hop topics that has one and gives it away soon."""
    places = [TopicPartition(topic.name, number) for topic in topics.hops for number in range(topic.partitions)]
    found: dict[TopicPartition, bytes] = {}
    if not places:
        return found
    with closing(_consumer(kafka)) as consumer:
        begins, ends = consumer.beginning_offsets(places), consumer.end_offsets(places)
        waiting = {place for place in places if begins[place] < ends[place]}
        deadline = time.monotonic() + PATIENCE_SECONDS
        consumer.assign(sorted(waiting))
        for place in waiting:
            consumer.seek(place, ends[place] - 1)
        while waiting - found.keys() and time.monotonic() < deadline:
            for place, records in consumer.poll(timeout_ms=200).items():
                found[place] = records[-1].value
    return found


def _consumer(kafka: Kafka, group_id: str | None = None) -> KafkaConsumer:
    return KafkaConsumer(
        **connection(kafka), group_id=group_id, enable_auto_commit=False, bootstrap_timeout_ms=REACH_MS
    )
