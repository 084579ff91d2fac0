"""What every broker knows: from one that lags behind a consumer would learn of no new topic, and ignore it."""

import asyncio
from collections.abc import Collection

from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import KafkaError
from aiokafka.protocol.metadata import MetadataRequest

LAG_SECONDS = 10.0  # within which brokers learn of a topic that was just made
POLL_SECONDS = 0.1


async def partition_counts(client: AIOKafkaClient, topics: Collection[str]) -> dict[str, int]:
    """Return how many partitions each topic has, 0 of one that is not there, for those that brokers agree about.

    Waits until a broker answers, and all that do know all of `topics`, if any does. Raises KafkaError where none has
    answered within LAG_SECONDS.
    """
    deadline = asyncio.get_running_loop().time() + LAG_SECONDS
    while True:
        told = [await _told(client, broker.nodeId, topics) for broker in client.cluster.brokers()]
        answers = [answer for answer in told if answer is not None]
        late = asyncio.get_running_loop().time() > deadline
        agreed = all(answer == answers[0] for answer in answers)
        if answers and (agreed or late):
            return {topic: min(answer[topic] for answer in answers) for topic in topics}
        if late:
            raise KafkaError("no broker tells its topics")
        await asyncio.sleep(POLL_SECONDS)
        if not answers:
            await client.force_metadata_update()  # who the brokers are


async def _told(client: AIOKafkaClient, node: int, topics: Collection[str]) -> dict[str, int] | None:
    """Return what one broker knows, None if it does not answer or is not of the cluster at the moment."""
    cluster = ClusterMetadata()
    try:
        cluster.update_metadata(await client.send(node, MetadataRequest()))
    except (KafkaError, TimeoutError):
        return None
    if not cluster.brokers():
        return None
    return {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in topics}
