"""What the sender holds of batches that wait for their broker."""

import asyncio
from types import SimpleNamespace

import numpy as np

from streams.runtime.records import Spans
from streams.runtime.sender import Sender, _Queue


def test_a_partition_that_waits_holds_no_other_partitions_records() -> None:
    """A batch's partitions share its buffers: what is full is written, and lets go of all but its own."""
    rows, size = 1000, 1000

    async def scenario() -> set[int]:
        sender = Sender("127.0.0.1:1")
        cluster = SimpleNamespace(partitions_for_topic=lambda topic: {0})
        sender._producer = SimpleNamespace(client=SimpleNamespace(cluster=cluster))
        sender._queue = _Queue(None, 1 << 14, 0, 300)
        for _ in range(20):
            keys, values = Spans.of([b"key"] * rows), Spans.of([bytes(size)] * rows)
            mine = np.arange(0, rows, 10)  # the tenth part of a batch, whose other partitions are acknowledged
            sender.send_records("topic", 0, keys, values, np.zeros(rows, np.int64), mine)
        (waiting,) = sender._queue._batches.values()
        return {id(piece.values.buffer) for batch in waiting for piece in batch._builder._pieces}

    assert len(asyncio.run(scenario())) < 10  # of 20
