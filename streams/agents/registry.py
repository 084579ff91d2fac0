"""The registry: every announcement with its models, and every change of an alias, is kept in the store.

The order of effects: 1. a batch's records are written; 2. the offset is committed. A crash between the two writes the
same rows again, which changes nothing. Nothing is verified here, so that nobody beside learner and scorers needs the
key: who takes a model from the registry verifies it.
"""

import logging
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

import msgspec

from schemas.events import AliasChange, ModelAnnouncement
from streams.metrics import Metrics
from streams.runtime.batches import Batch
from streams.stores.registry import Keep, ModelRegistry, changed

STAGE = "registry"
MINUTE_MS, HOUR_MS = 60_000, 3_600_000

log = logging.getLogger(__name__)

T = TypeVar("T")

_decode_announcement = msgspec.json.Decoder(ModelAnnouncement).decode
_decode_change = msgspec.json.Decoder(AliasChange).decode


class RegistryAgent:
    """Writes each batch of the model topic and of the alias topic; both are idempotent."""

    def __init__(self, registry: ModelRegistry, metrics: Metrics) -> None:
        self._registry, self._metrics = registry, metrics
        self._before: int | None = None

    async def keep_models(self, batch: Batch) -> AsyncGenerator[int, None]:
        """Keep a batch of announcements; yields its next offset once all of it is kept."""
        for _, offset, value in _values(batch):
            announcement = self._read(_decode_announcement, batch, offset, value)
            if announcement is not None:
                # An older one that goes out again is kept with the announcement that it was made for.
                new = [model for model in announcement.models if model.created_at == announcement.created_at]
                await self._registry.write(value, new, self._keep(announcement))
        self._metrics.events.labels(STAGE).inc(len(batch.records))
        yield batch.next_offset

    async def keep_changes(self, batch: Batch) -> AsyncGenerator[int, None]:
        """Keep a batch of alias changes; yields its next offset once all of it is kept."""
        for time, offset, value in _values(batch):
            change = self._read(_decode_change, batch, offset, value)
            if change is not None:
                await self._registry.write_change(changed(change, time, offset))
        self._metrics.events.labels(STAGE).inc(len(batch.records))
        yield batch.next_offset

    def _keep(self, announcement: ModelAnnouncement) -> Keep:
        """Return how long to keep it: what is for scorers only, and cannot be relearnt from, for an hour."""
        if not announcement.course:
            return Keep.AN_HOUR
        before, self._before = self._before, announcement.created_at
        return keep_for(announcement.created_at, before)

    def _read(self, decode: Callable[[bytes], T], batch: Batch, offset: int, value: bytes) -> T | None:
        try:
            return decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            log.error("%s/%d at offset %d: not kept: %s", batch.topic, batch.partition, offset, error)
            self._metrics.models_refused.inc()
            return None


def keep_for(created_at: int, before: int | None) -> Keep:
    """Return how long an announcement is kept that follows another, both epoch ms: the first of an hour and that of a
    minute longer, so that there is enough to go back to and little to keep; the first of a process is that of an hour.

    >>> keep_for(7_200_000, 7_199_000), keep_for(7_203_000, 7_201_000)
    (<Keep.LONG: 7776000>, <Keep.AN_HOUR: 3600>)
    """
    if before is None or created_at // HOUR_MS != before // HOUR_MS:
        return Keep.LONG
    return Keep.TWO_DAYS if created_at // MINUTE_MS != before // MINUTE_MS else Keep.AN_HOUR


def _values(batch: Batch) -> list[tuple[int, int, bytes]]:
    """Return time, offset and value of the records that are not null, as a deleted one is."""
    records = batch.records
    rows = zip(records.timestamps.tolist(), records.offsets.tolist(), records.values(), strict=True)
    return [(time, offset, value) for time, offset, value in rows if value is not None]
