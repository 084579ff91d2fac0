"""What tests on the servers share: topics, what is kept and recorded, and waits in which a server may be away."""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, TypeVar

from aiokafka import errors
from cassandra import OperationTimedOut
from cassandra.cluster import Cluster, NoHostAvailable, Session
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import KafkaError
from redis import Redis
from redis.cluster import ClusterNode, RedisCluster

from schemas.topics import Topics
from streams.runtime.topics import KafkaUnavailable, asked, create_topics
from streams.stores.history import StoreUnreachable

POLL = 0.05
PATIENCE = 60.0  # seconds

AWAY = (KafkaUnavailable, KafkaError, errors.KafkaError, StoreUnreachable, NoHostAvailable, OperationTimedOut)
"""What is raised where Kafka or Cassandra has just come back, or is too busy for a moment."""

T = TypeVar("T")


def answered(seconds: float, question: Callable[[], T]) -> T:
    """Return what a server answers; while it is away it is asked again, at most so long."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return question()
        except AWAY:
            if time.monotonic() > deadline:
                raise
        time.sleep(POLL)


def within(seconds: float, truth: Callable[[], bool]) -> bool:
    """Wait until it is true, at most so long, and say whether it is; meanwhile a server may be away."""
    deadline = time.monotonic() + seconds
    while not (true := answered(deadline - time.monotonic(), truth)) and time.monotonic() < deadline:
        time.sleep(POLL)
    return true


@contextmanager
def created(kafka: str, topics: Topics) -> Iterator[None]:
    """Empty topics inside the block, gone after it."""
    names = {topic.name for topic in topics}
    create_topics(kafka, topics)
    try:
        yield
    finally:
        asked(kafka, lambda admin: admin.delete_topics(sorted(names & set(admin.list_topics()))))
        assert within(20, lambda: not names & set(asked(kafka, KafkaAdminClient.list_topics)))


def forget(kafka: str, ends: dict[TopicPartition, int]) -> None:
    """Let Kafka delete every record before `ends`, as retention does."""
    asked(kafka, lambda admin: admin.delete_records(ends))


@contextmanager
def cassandra_session(address: str) -> Iterator[Session]:
    """A session of the driver's own inside the block, with patience for a busy node."""
    host, _, port = address.rpartition(":")
    with (
        Cluster([host], port=int(port), connect_timeout=PATIENCE, control_connection_timeout=PATIENCE) as cluster,
        cluster.connect() as session,
    ):
        session.default_timeout = PATIENCE
        yield session


def new_topic(kafka: str, partitions: int = 1, **config: str) -> str:
    """Create a topic, and return its name, which no other has."""
    name = f"test.{uuid.uuid4().hex[:8]}"
    asked(kafka, lambda admin: admin.create_topics([NewTopic(name, partitions, 1, topic_configs=config)]))
    return name


def redis_at(url: str) -> Any:
    """Return a client of the Redis, or with a `redis+cluster` URL the Redis Cluster, at `url`."""
    scheme, _, addresses = url.partition("://")
    if scheme != "redis+cluster":
        return Redis.from_url(url)
    places = [address.rpartition(":") for address in addresses.split(",")]
    return RedisCluster(startup_nodes=[ClusterNode(host, int(port)) for host, _, port in places])


def states_of(redis: Any, checkpoint: bytes) -> list[bytes]:
    """Return the keys of the states of the generation that a partition is in now, those of the last period last."""
    prefix = checkpoint.removesuffix(b"checkpoint") + (redis.hget(checkpoint, "generation") or b"") + b":states:"
    keys = redis.scan_iter(prefix + b"*", count=10_000)
    return sorted(keys, key=lambda key: [int(number) for number in key.removeprefix(prefix).split(b":")])


def kept_states(url: str, usecase: str = "fraud") -> dict[tuple[str, bytes], bytes]:
    """Every entity's state in Redis by entity and id, of the generation that each partition is in now."""
    found: dict[tuple[str, bytes], bytes] = {}
    with redis_at(url) as redis:
        for checkpoint in list(redis.scan_iter(f"{{{usecase}.*}}:checkpoint", count=10_000)):
            entity = checkpoint.split(b".")[-3].decode()
            kept = [redis.hgetall(key) for key in states_of(redis, checkpoint)]
            states = {(entity, id_): state for some in kept for id_, state in some.items()}
            assert not found.keys() & states.keys(), "an entity is in two partitions"
            found |= states
    return found


def records(kafka: str, topic: str) -> list[Any]:
    """Every record that a topic has by now, each partition's in order."""

    def read() -> list[Any]:
        with closing(KafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False)) as consumer:
            return _read(consumer, topic)

    return answered(PATIENCE, read)


def _read(consumer: KafkaConsumer, topic: str) -> list[Any]:
    partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or [])]
    consumer.assign(partitions)
    consumer.seek_to_beginning()
    ends = consumer.end_offsets(partitions)
    found: list[Any] = []
    deadline = time.monotonic() + 30
    while any(consumer.position(one) < ends[one] for one in partitions):
        assert time.monotonic() < deadline, f"{topic} cannot be read to its ends {ends}"
        found += [record for batch in consumer.poll(500).values() for record in batch]
    return found
