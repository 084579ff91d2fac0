"""Where a partition is read on, how batches are handed to agents, and when nothing is refused."""

import asyncio
import logging
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from faust.types import TP

from streams.features.table import StateRefused
from streams.runtime.consumer import EARLIEST, BatchConsumer
from streams.runtime.fetching import Fetched
from streams.runtime.records import Records
from streams.runtime.thread import ConsumerThread, within_log

PARTITION = TP("payments", 3)


@pytest.mark.parametrize(("kept", "read_on_at"), [(EARLIEST, 10), (10, 10), (15, 15), (20, 20)])
def test_an_offset_within_the_log_is_kept(caplog: pytest.LogCaptureFixture, kept: int, read_on_at: int) -> None:
    """Its end belongs to it, as the next record comes there; no offset is the beginning, and nothing is said."""
    assert within_log(PARTITION, kept, 10, 20) == read_on_at
    assert not caplog.records


def test_what_retention_has_removed_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Reading goes on where the log begins, and a warning names the gap."""
    with caplog.at_level(logging.WARNING):
        assert within_log(PARTITION, 4, 10, 20) == 10
    assert "payments/3: offsets 4 to 9 are gone" in caplog.text


def test_an_offset_beyond_the_log_is_refused() -> None:
    """The topic was made anew: going on there would leave out its records until it is that long again."""
    with pytest.raises(StateRefused, match=r"payments/3 ends at offset 20, but .* offset 21"):
        within_log(PARTITION, 21, 10, 20)


def test_a_consumer_that_has_found_no_broker_yet_is_refused_by_none() -> None:
    """It is asked about its group from the first moment on, and a broker may take its time."""

    class Thread:
        _consumer = AIOKafkaConsumer.__new__(AIOKafkaConsumer)

    Thread._consumer._coordinator = None
    ConsumerThread.check(Thread())  # type: ignore[arg-type]


def test_what_is_taken_is_not_done_before_it_is_worked_on() -> None:
    """A fetch brings several topics, which are handed over one after the other: none counts as done by its position.

    The earlier agent has its batches first, whatever the order of the answer.
    """
    first, second = TP("events", 0), TP("hops", 0)
    seen, order = [], []

    class Fetcher:
        should_stop = False

    class Thread:
        async def poll(self, *_: object) -> dict[TP, Fetched]:
            records = Records.of([b"k"], [b"v"], [0], [1])
            return {second: Fetched(records, 1), first: Fetched(records, 1)}

        def fetched_to(self, _: TP) -> int:
            return 1

    class Consumer(BatchConsumer):
        should_stop = False

        def __init__(self) -> None:
            self.generation, self._ahead, self._held, self._done = 0, Counter(), set(), {first: 0, second: 0}
            self._thread: Any = Thread()
            self.app: Any = SimpleNamespace(consumer_generation_id=0, source_topics=["events", "hops"])

        async def callback(self, message: Any) -> None:
            seen.append(self.reached())
            order.append(message.topic)
            Fetcher.should_stop = True

    asyncio.run(Consumer()._drain(Fetcher()))
    assert order == ["events", "hops"]
    assert seen == [{first: 0, second: 0}] * 2
