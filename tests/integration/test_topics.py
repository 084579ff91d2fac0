"""What Kafka is asked about groups, on one that is new."""

from pathlib import Path

import pytest

from streams.runtime.topics import group_members
from tests.engines import Engine

pytestmark = pytest.mark.integration


def test_where_no_group_ever_was_nobody_is_in_one(engine: Engine, tmp_path: Path) -> None:
    """The first to ask a new Kafka is told so, though the topic that keeps groups is only made for the question."""
    with engine.kafka(tmp_path) as server:
        assert group_members(server.address, "fraud-learner") == 0
