"""From a public topic's records to rows: strict, whole batches at a time, poison set aside one by one."""

from collections.abc import Sequence
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.codec import MAX_VALUE_BYTES, Decoder, Poison
from schemas.events import Watermark
from streams.features.spec import Over
from streams.runtime.hop import END_OF_WATERMARKS, FROM_EVENTS, WATERMARK, HopRows
from streams.runtime.records import Records
from streams.runtime.watermarks import is_watermark, read_watermark
from streams.usecases import UseCase

Dead = list[tuple[int, Poison]]
"""Which record of a batch is poison, and why."""


class EventReader:
    """Reads the events of a use case into the rows of its first stage."""

    def __init__(self, usecase: UseCase) -> None:
        features = usecase.features
        self._one = Decoder(usecase.event, usecase.event_time)
        self._decode = msgspec.json.Decoder(usecase.event).decode
        self._key_field = features.stages[0].key
        self._texts = [attrgetter(usecase.event_id), *(attrgetter(stage.key) for stage in features.stages)]
        self._time = attrgetter(usecase.event_time)
        self._values = [attrgetter(value) for value in features.values]
        # Stands where a watermark stands among events, so that a batch is read by columns all the same.
        texts = {usecase.event_id: "", **{stage.key: "" for stage in features.stages}}
        self._blank = SimpleNamespace(**texts, **{usecase.event_time: 0}, **dict.fromkeys(features.values, 0.0))

    def read(self, records: Records, partitions: NDArray[np.int64] | int, latest: int) -> tuple[HopRows, Dead]:
        """Return the events and watermarks in order, and what is poison.

        `partitions` says where each record is from, `latest` (ms) is the last sane event time.

        An event must be keyed by its first entity's id, as that is what puts all of an entity's events into one
        partition.
        """
        values, keys = records.values(), records.keys()
        partitions = np.full(len(records), partitions, np.int64)
        try:
            events = self._all(records, values, keys, latest)
            dead: Dead = []
        except (ValueError, TypeError, RecursionError):
            events, dead = self._each(records, values, keys, latest)
            sound = np.ones(len(records), bool)
            sound[[row for row, _ in dead]] = False
            records, partitions = records.take(sound), partitions[sound]
        return self._rows(events, records, partitions), dead

    def _all(
        self, records: Records, values: Sequence[bytes | None], keys: Sequence[bytes | None], latest: int
    ) -> list[Any]:
        """Return every event of a batch without poison or watermarks, fast; raise ValueError of any other."""
        if records.has_headers.any() or int(records.value_size.max()) > MAX_VALUE_BYTES:
            raise ValueError
        events = list(map(self._decode, values))  # type: ignore[arg-type] # a null raises TypeError
        if max(map(self._time, events)) > latest or [self._texts[1](event).encode() for event in events] != keys:
            raise ValueError
        return events

    def _each(
        self, records: Records, values: Sequence[bytes | None], keys: Sequence[bytes | None], latest: int
    ) -> tuple[list[Any], Dead]:
        events: list[Any] = []
        dead: Dead = []
        for row, (value, key) in enumerate(zip(values, keys, strict=True)):
            try:
                if is_watermark(records, row):
                    events.append(read_watermark(value))
                    continue
                event = self._one(value, latest)
                if self._texts[1](event).encode() != key:
                    raise Poison("wrong_key", f"the record's key is not the event's {self._key_field}")
                events.append(event)
            except Poison as poison:
                dead.append((row, poison))
        return events, dead

    def _rows(self, events: Sequence[Any], records: Records, partitions: NDArray[np.int64]) -> HopRows:
        n = len(events)
        promises = {row: event for row, event in enumerate(events) if type(event) is Watermark}
        if promises:
            events = [self._blank if row in promises else event for row, event in enumerate(events)]
        rows = HopRows(
            kinds=np.full(n, Over.EVENTS, np.int8),
            source_topics=np.full(n, FROM_EVENTS, np.int64),
            source_partitions=partitions,
            source_offsets=records.offsets,
            times=np.fromiter(map(self._time, events), np.int64, n),
            received=records.timestamps,
            numbers=np.zeros((n, len(self._values) + 1)),
            positions=records.offsets,
            texts=tuple(list(map(text, events)) for text in self._texts),
        )
        for column, value in enumerate(self._values):
            rows.numbers[:, column] = list(map(value, events))
        for row, promise in promises.items():
            rows.kinds[row] = WATERMARK
            rows.times[row] = END_OF_WATERMARKS if promise.watermark is None else promise.watermark
        return rows
