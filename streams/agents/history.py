"""The history: every score is kept in the store, by event and by entity and day.

The order of effects: 1. dead letters and rows are written, and acknowledged; 2. the offset is committed. A crash
between the two writes the same rows again, which changes nothing.
"""

import asyncio
import time
from collections.abc import AsyncGenerator

from schemas.codec import Decoder, Poison
from schemas.events import Score
from streams.agents.deadletters import DeadLetters
from streams.metrics import Metrics
from streams.runtime.batches import Batch
from streams.runtime.records import Records
from streams.stores.history import HistoryStore, Scored

STAGE = "history"

_decode = Decoder(Score, "event_time")


class HistoryAgent:
    """Writes each batch of the scores topic; `work` is idempotent."""

    def __init__(self, store: HistoryStore, dead_letters: DeadLetters, metrics: Metrics, max_ahead_ms: int) -> None:
        self._store = store
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._max_ahead_ms = max_ahead_ms

    async def work(self, batch: Batch) -> AsyncGenerator[int, None]:
        """Keep a batch of scores; yields its next offset once all of it is kept."""
        began = time.perf_counter()
        scores, dead = read_scores(batch.records, int(time.time() * 1000) + self._max_ahead_ms)
        await asyncio.gather(self._store.write_scores(scores), self._dead_letters.send(batch, dead))
        self._metrics.events.labels(STAGE).inc(len(batch.records))
        self._metrics.batches.labels(STAGE).inc()
        self._metrics.batch_seconds.labels(STAGE).observe(time.perf_counter() - began)
        yield batch.next_offset


def read_scores(records: Records, latest: int) -> tuple[list[Scored], list[tuple[int, Poison]]]:
    """Return the scores of a batch, and the rows that hold none; no event may be after `latest` (ms)."""
    scores: list[Scored] = []
    dead: list[tuple[int, Poison]] = []
    rows = zip(records.values(), records.offsets.tolist(), strict=True)
    for row, (value, offset) in enumerate(rows):
        try:
            scores.append(Scored(_decode(value, latest), value or b"", offset))
        except Poison as poison:
            dead.append((row, poison))
    return scores, dead
