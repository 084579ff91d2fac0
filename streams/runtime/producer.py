"""Sending from outside the streams: a kafka-python producer that knows what Kafka has acknowledged."""

import logging
import signal
import threading
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from kafka import KafkaProducer
from kafka.errors import KafkaError

from streams.runtime.connection import connection
from streams.runtime.topics import REACH_MS, KafkaUnavailable, unavailable
from streams.settings import Kafka

IN_FLIGHT = 20_000
"""Records that may wait for their acknowledgement; the client itself has no bound."""

Headers = list[tuple[str, bytes]]


class _Client(KafkaProducer):
    """A producer that is silent when it is forgotten after an error."""

    def __del__(self) -> None:
        with suppress(KafkaError):
            super().__del__()


class Producer:
    """Sends records in order, each acknowledged by all replicas; as a context manager it flushes at the end.

    `linger_ms` is how long a record may wait for others of its partition. Raises KafkaUnavailable.
    """

    def __init__(self, kafka: Kafka, linger_ms: int) -> None:
        self._kafka = kafka
        self._waiting: deque[Any] = deque()
        # What matters of the client's own warnings is in the errors raised here.
        logging.getLogger("kafka").setLevel(logging.CRITICAL)
        try:
            self._producer = _Client(
                **connection(kafka),
                bootstrap_timeout_ms=REACH_MS,
                linger_ms=linger_ms,
                batch_size=1 << 18,
                max_block_ms=REACH_MS,
                delivery_timeout_ms=30_000,
                request_timeout_ms=15_000,
            )
        except (KafkaError, OSError) as error:
            raise self._unavailable(error) from None

    def send(
        self,
        topic: str,
        value: bytes,
        key: bytes | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
    ) -> None:
        """Send a record to `partition`, or to the partition that Kafka's own hash of the key says."""
        try:
            self._waiting.append(self._producer.send(topic, value=value, key=key, headers=headers, partition=partition))
            # A failure is told at the next record, not at the end.
            while self._waiting and (self._waiting[0].is_done or len(self._waiting) > IN_FLIGHT):
                self._waiting.popleft().get()
        except (KafkaError, OSError) as error:
            raise self._unavailable(error) from None

    def flush(self) -> None:
        """Wait until everything sent so far is acknowledged."""
        try:
            self._producer.flush()
            while self._waiting:
                self._waiting.popleft().get()
        except (KafkaError, OSError) as error:
            raise self._unavailable(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            with suppress(KafkaError):  # of what is given up after an error
                self._producer.close(timeout=0)

    def _unavailable(self, error: Exception) -> KafkaUnavailable:
        return unavailable(self._kafka, error)


def stop_flag() -> threading.Event:
    """Return a flag that SIGINT and SIGTERM set, so that a loop can end between two records."""
    flag = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: flag.set())
    return flag
