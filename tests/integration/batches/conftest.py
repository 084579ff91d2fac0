"""What the tests of batches share: a Kafka, a producer, and workers that end with the test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka import KafkaProducer

from tests.integration.batches.worker import Worker


@pytest.fixture
def kafka(kafka_server: str) -> str:
    return kafka_server


@pytest.fixture
def producer(kafka: str) -> Iterator[KafkaProducer]:
    producer = KafkaProducer(bootstrap_servers=kafka, linger_ms=1)
    yield producer
    producer.close()


@pytest.fixture
def start(kafka: str, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    workers = []

    def start(*topics: str, at: str = kafka) -> Worker:
        workers.append(Worker(at, tmp_path, *topics))
        return workers[-1]

    yield start
    for worker in workers:
        worker.process.kill()
        worker.process.wait()
