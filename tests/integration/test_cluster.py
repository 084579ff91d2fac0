"""Kafka and Redis as clusters: a broker and a master are lost under load, and nothing else is."""

from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from infra.local.cluster import LocalCluster
from streams.runtime.topics import TopicMismatch, create_topics
from streams.usecases import FRAUD
from tests.chaos.__main__ import report
from tests.chaos.campaign import Campaign, Plan
from tests.chaos.members import BOTH

pytestmark = [pytest.mark.integration, pytest.mark.local, pytest.mark.timeout(400)]


def copies(kafka: str, topic: str) -> tuple[int, str]:
    """How many brokers keep a topic, and of how many a write must be acknowledged."""
    admin = KafkaAdminClient(bootstrap_servers=kafka.split(","))
    (described,) = admin.describe_topics([topic])
    (configs,) = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)]).values()
    admin.close()
    (replicas,) = {len(partition["replica_nodes"]) for partition in described["partitions"]}
    return replicas, configs[topic]["min.insync.replicas"]["value"]


def test_a_broker_and_a_master_die_and_nothing_is_lost(tmp_path: Path) -> None:
    """Three brokers, three masters, two workers: whoever is killed, everything is as an uninterrupted run has it."""
    plan = Plan(seed=1, seconds=15.0, rate=300.0, faults=[BOTH], quiet=3.0, warm=3.0, held=0.0, workers=2)
    with LocalCluster(tmp_path / "servers") as servers:
        topics = FRAUD.topics(plan.partitions)
        with pytest.raises(TopicMismatch, match="HEADRACE_REPLICATION: there are fewer than 4 brokers"):
            create_topics(servers.kafka.address, topics, replication=4)
        create_topics(servers.kafka.address, topics, replication=3)
        assert copies(servers.kafka.address, topics.scores.name) == (3, "2")
        verdict = Campaign(plan, servers, tmp_path / "logs", print).run()
    print(report(verdict))
    assert verdict.differences == []
