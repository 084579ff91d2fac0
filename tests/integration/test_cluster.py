"""Kafka and Redis as clusters: a broker and a master are lost under load, and nothing else is."""

from pathlib import Path

import pytest

from infra.local.cluster import LocalCluster
from streams.runtime.topics import create_topics
from streams.usecases import FRAUD
from tests.chaos.__main__ import report
from tests.chaos.campaign import Campaign, Plan
from tests.chaos.members import BOTH

pytestmark = [pytest.mark.integration, pytest.mark.local, pytest.mark.timeout(400)]


def test_a_broker_and_a_master_die_and_nothing_is_lost(tmp_path: Path) -> None:
    """Three brokers, three masters, two workers: whoever is killed, everything is as an uninterrupted run has it."""
    plan = Plan(seed=1, seconds=15.0, rate=300.0, faults=[BOTH], quiet=3.0, warm=3.0, held=0.0, workers=2)
    with LocalCluster(tmp_path / "servers") as servers:
        create_topics(servers.kafka.address, FRAUD.topics(plan.partitions), replication=3)
        verdict = Campaign(plan, servers, tmp_path / "logs", print).run()
    print(report(verdict))
    assert verdict.differences == []
