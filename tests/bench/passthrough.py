"""The limit: take every record in through the pipeline's own runtime and send its bytes on, nothing else."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from faust.types import TP

from streams.runtime.batches import EARLIEST, Batch, BatchApp, Ownership, create_app
from streams.runtime.records import build
from streams.runtime.sender import Sender
from streams.runtime.worker import run
from streams.settings import Settings

EVENTS, RESULTS = "passthrough.in", "passthrough.out"


async def from_the_start(partitions: set[TP]) -> dict[TP, int]:
    """Begin every partition at its first record."""
    return dict.fromkeys(partitions, EARLIEST)


def main() -> int:
    """Pass records on until stopped."""
    settings = Settings.read(os.environ)
    sender = Sender(settings.kafka)
    app: BatchApp = create_app(
        "passthrough", settings.kafka, Ownership(from_the_start), session_timeout=settings.session_seconds
    )

    async def pass_on(batch: Batch) -> None:
        records = batch.records
        for data in build(records.key_spans, records.value_spans, records.timestamps):
            sender.send_batch(RESULTS, batch.partition, data)
        await sender.room()

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        await sender.start()
        await sender.partitions(RESULTS)
        try:
            yield
        finally:
            await sender.stop()

    app.on_batch(EVENTS, name="pass-on")(pass_on)
    return run(app, running)


if __name__ == "__main__":
    sys.exit(main())
