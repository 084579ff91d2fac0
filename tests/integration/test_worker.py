"""The processes of a use case at their start: what does not fit is said in one line, and nothing else is."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.processes import Processes
from streams.usecases import FRAUD
from tests.local import created

PARTITIONS = 2
KEY = {"HEADRACE_MODEL_KEY": "k" * 32}


@pytest.fixture
def kafka(kafka_server: str) -> Iterator[str]:
    """A Kafka with the use case's topics, all empty."""
    with created(kafka_server, FRAUD.topics(PARTITIONS)):
        yield kafka_server


def complaints(log: Path) -> list[str]:
    """The lines of a process's log that are not its progress."""
    lines = log.read_text().splitlines()
    return [line for line in lines if not re.match(r"metrics: |\S+ \S+ INFO ", line)]


@pytest.mark.parametrize("service", ["worker", "history", "learner"])
def test_another_partition_count_is_refused_at_the_start(kafka: str, tmp_path: Path, service: str) -> None:
    """Settings that do not fit the topics would put entities where nobody looks: one line, exit 1."""
    settings = KEY | {"HEADRACE_KAFKA": kafka, "HEADRACE_PARTITIONS": "3"}
    with Processes(tmp_path, settings) as processes:
        process = processes.start(service, f"services.{service}", "fraud")
        assert process.popen.wait(30) == 1
    (line,) = complaints(process.log)
    assert line.endswith(
        "topic fraud.transactions has 2 partitions, not 3: "
        "set HEADRACE_PARTITIONS to what the topics have, or start with empty topics"
    )
