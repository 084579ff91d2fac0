"""One deployment, one feature set: another one is started beside it, under a name of its own."""

import logging
import time

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from schemas.topics import Topics
from streams.runtime.hop import features_of
from streams.runtime.topics import REACH_MS, KafkaUnavailable
from streams.usecases import UseCase

PATIENCE_SECONDS = 5.0


class AnotherFeatureSet(Exception):
    """The deployment runs another feature set than the one that was to join it; the message says what to do."""


def refuse_another_feature_set(kafka: str, usecase: UseCase, topics: Topics) -> None:
    """Raise AnotherFeatureSet where the newest hop messages of `usecase` are of another feature set than its own.

    Its workers would not understand each other, and bury what the others pass on. Raises KafkaUnavailable.
    """
    ours = usecase.features.fingerprint
    for place, message in _newest(kafka, topics).items():
        found = features_of(message)
        if found is not None and found != ours:
            raise AnotherFeatureSet(
                f"{place.topic} has messages of feature set {found}, this is {ours}: start it beside the "
                f"deployment that runs, under a name of its own (HEADRACE_DEPLOYMENT)"
            )


def _newest(kafka: str, topics: Topics) -> dict[TopicPartition, bytes]:
    """Return the newest record of each partition of the hop topics that has one and gives it away soon."""
    places = [TopicPartition(topic.name, number) for topic in topics.hops for number in range(topic.partitions)]
    if not places:
        return {}
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # what matters of its warnings is in the errors here
    found: dict[TopicPartition, bytes] = {}
    try:
        consumer = KafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False, bootstrap_timeout_ms=REACH_MS)
        try:
            begins, ends = consumer.beginning_offsets(places), consumer.end_offsets(places)
            waiting = {place for place in places if begins[place] < ends[place]}
            deadline = time.monotonic() + PATIENCE_SECONDS
            consumer.assign(sorted(waiting))
            for place in waiting:
                consumer.seek(place, ends[place] - 1)
            while waiting - found.keys() and time.monotonic() < deadline:
                for place, records in consumer.poll(timeout_ms=200).items():
                    found[place] = records[-1].value
        finally:
            consumer.close()
    except (KafkaError, OSError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise KafkaUnavailable(f"Kafka at {kafka} does not answer ({why})") from None
    return found
