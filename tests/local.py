"""What tests on the local servers share: topics, what is kept and recorded, and waits with an end."""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import NewTopic
from redis import Redis
from redis.cluster import ClusterNode, RedisCluster

from schemas.topics import Topics
from streams.runtime.topics import create_topics

POLL = 0.05


def within(seconds: float, truth: Callable[[], bool]) -> bool:
    """Wait until it is true, at most so long, and say whether it is."""
    deadline = time.monotonic() + seconds
    while not truth() and time.monotonic() < deadline:
        time.sleep(POLL)
    return truth()


@contextmanager
def created(kafka: str, topics: Topics) -> Iterator[None]:
    """Empty topics inside the block, gone after it."""
    names = {topic.name for topic in topics}
    create_topics(kafka, topics)
    try:
        yield
    finally:
        admin = KafkaAdminClient(bootstrap_servers=kafka)
        admin.delete_topics(sorted(names))
        gone = within(20, lambda: not names & set(admin.list_topics()))
        admin.close()
        assert gone


def new_topic(kafka: str, partitions: int = 1, **config: str) -> str:
    """Create a topic, and return its name, which no other has."""
    name = f"test.{uuid.uuid4().hex[:8]}"
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    admin.create_topics([NewTopic(name, partitions, 1, topic_configs=config)])
    admin.close()
    return name


def redis_at(url: str) -> Any:
    """Return a client of the Redis, or with a `redis+cluster` URL the Redis Cluster, at `url`."""
    scheme, _, addresses = url.partition("://")
    if scheme != "redis+cluster":
        return Redis.from_url(url)
    places = [address.rpartition(":") for address in addresses.split(",")]
    return RedisCluster(startup_nodes=[ClusterNode(host, int(port)) for host, _, port in places])


def kept_states(url: str, usecase: str = "fraud") -> dict[tuple[str, bytes], bytes]:
    """Every entity's state in Redis by entity and id, of the generation that each partition is in now."""
    found: dict[tuple[str, bytes], bytes] = {}
    with redis_at(url) as redis:
        for checkpoint in list(redis.scan_iter(f"{{{usecase}.*}}:checkpoint", count=10_000)):
            prefix = checkpoint.removesuffix(b"checkpoint") + redis.hget(checkpoint, "generation") + b":e:"
            keys = list(redis.scan_iter(prefix + b"*", count=10_000))
            entity = checkpoint.split(b".")[-3].decode()
            kept = redis.mget(keys) if keys else []
            states = {(entity, key.removeprefix(prefix)): state for key, state in zip(keys, kept, strict=True)}
            assert not found.keys() & states.keys(), "an entity is in two partitions"
            found |= states
    return found


def records(kafka: str, topic: str) -> list[Any]:
    """Every record that a topic has by now, each partition's in order."""
    consumer = KafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False)
    partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or [])]
    consumer.assign(partitions)
    consumer.seek_to_beginning()
    ends = consumer.end_offsets(partitions)
    found: list[Any] = []
    deadline = time.monotonic() + 30
    while any(consumer.position(one) < ends[one] for one in partitions):
        assert time.monotonic() < deadline, f"{topic} cannot be read to its ends {ends}"
        found += [record for batch in consumer.poll(500).values() for record in batch]
    consumer.close()
    return found
