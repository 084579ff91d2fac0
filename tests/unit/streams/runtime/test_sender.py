"""What the sender holds of batches that wait for their broker, and which of them may be written."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest
from aiokafka.client import ConnectionGroup

from streams.runtime.records import Spans
from streams.runtime.sender import TURNS, Sender, _InFlight, _Queue


def waiting_sender(partitions: set[int]) -> Sender:
    """A sender whose broker has the number 1; nothing is written, as aiokafka's tasks do not run."""
    sender = Sender("127.0.0.1:1")
    cluster = SimpleNamespace(partitions_for_topic=lambda _: partitions, leader_for_partition=lambda _: 1)
    sender._producer = SimpleNamespace(
        client=SimpleNamespace(cluster=cluster), _sender=SimpleNamespace(_muted_partitions=set())
    )
    sender._queue = _Queue(cluster, 1 << 14, 0, 300)
    return sender


def send_one(sender: Sender, partition: int) -> None:
    sender.send_records("topic", partition, Spans.of([b"key"]), Spans.of([b"value"]), np.zeros(1, np.int64))


@pytest.mark.parametrize(("connected", "in_flight", "taken"), [(True, 2, True), (False, 1, False), (False, 0, True)])
def test_a_broker_that_is_not_connected_has_one_request(connected: bool, in_flight: int, taken: bool) -> None:
    """Each would try to connect by itself, one after the other: behind a host that is silent, for minutes."""

    async def scenario() -> None:
        sender = waiting_sender({0})
        connection = SimpleNamespace(connected=lambda: connected)
        sender._queue.client = SimpleNamespace(_conns={(1, ConnectionGroup.DEFAULT): connection})
        nodes = _InFlight()
        for _ in range(in_flight):
            nodes.add(1)
        send_one(sender, 0)
        batches, _ = sender._queue.drain_by_nodes(nodes, frozenset())
        assert bool(batches) == taken
        for _ in range(in_flight):
            nodes.remove(1)
        assert not nodes

    asyncio.run(scenario())


def test_what_cannot_be_written_now_is_not_waited_for() -> None:
    """A batch behind another of its partition has its turn later; one that may go has some of the loop."""

    async def scenario() -> list[int]:
        sender, turns, waited = waiting_sender({0, 1}), 0, []

        async def turning() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        loop = asyncio.create_task(turning())
        send_one(sender, 0)
        sender._producer._sender._muted_partitions.update(sender._queue._batches)
        for partition in (0, 1):
            send_one(sender, partition)
            before = turns
            await sender.written()
            waited.append(turns - before)
        loop.cancel()
        return waited

    behind, free = asyncio.run(scenario())
    assert behind == 0
    assert free >= TURNS - 1  # the task that counts begins within the first


def test_a_partition_that_waits_holds_no_other_partitions_records() -> None:
    """A batch's partitions share its buffers: what is full is written, and lets go of all but its own."""
    rows, size = 1000, 1000

    async def scenario() -> set[int]:
        sender = waiting_sender({0})
        for _ in range(20):
            keys, values = Spans.of([b"key"] * rows), Spans.of([bytes(size)] * rows)
            mine = np.arange(0, rows, 10)  # the tenth part of a batch, whose other partitions are acknowledged
            sender.send_records("topic", 0, keys, values, np.zeros(rows, np.int64), mine)
        (waiting,) = sender._queue._batches.values()
        return {id(piece.values.buffer) for batch in waiting for piece in batch._builder._pieces}

    assert len(asyncio.run(scenario())) < 10  # of 20
