"""The fault campaign of `make chaos`, in short: everything at once, against the oracle."""

from pathlib import Path

import pytest

from infra.local import LocalServers
from tests.chaos.__main__ import report
from tests.chaos.campaign import Campaign, Plan
from tests.chaos.faults import SHORT

pytestmark = [pytest.mark.integration, pytest.mark.local, pytest.mark.timeout(300)]


def test_a_short_campaign_ends_where_an_uninterrupted_run_does(tmp_path: Path) -> None:
    """Workers, learner and Valkey die under a load with repeats, late events, labels and poison: no difference."""
    plan = Plan(seed=1, seconds=18.0, rate=300.0, faults=SHORT, quiet=3.0, warm=3.0, held=0.0)
    with LocalServers(tmp_path / "servers") as servers:
        verdict = Campaign(plan, servers, tmp_path / "logs", print).run()
    print(report(verdict))
    assert verdict.differences == []
