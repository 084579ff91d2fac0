"""Folded states into the store, as if workers had folded them, with the offsets to go on from.

The order of effects:

1. every partition is claimed; where one has a checkpoint already, nothing is written;
2. the states are put beside no checkpoint: nobody reads them yet;
3. the checkpoints, the last stage's first.

A crash before 3 leaves nothing that counts. One within 3 leaves the last stages ahead of the first, whose
replay they drop as seen: their states are right, but the events of that replay are not scored.
"""

from collections.abc import Iterator

import numpy as np

from schemas.topics import Topics
from services.backfill.log import Log
from streams.features.pipeline import Pipeline
from streams.features.table import EntityTable
from streams.runtime.gate import NEVER
from streams.runtime.records import Spans, partition_of
from streams.stores.state import Checkpoint, States, TrackingStore
from streams.usecases import UseCase

AT_ONCE = 5_000  # states in one write


class AlreadyThere(Exception):
    """The deployment has states: it has been started before."""


async def keep(store: TrackingStore, usecase: UseCase, topics: Topics, pipeline: Pipeline, log: Log) -> int:
    """Keep every state and where to go on; return how many states. Raises AlreadyThere, StoreUnavailable."""
    parts = [
        (index, usecase.states(table.stage, partition), states, partition)
        for index, table in enumerate(pipeline.tables)
        for partition, states in enumerate(_by_partition(table, topics.events.partitions))
    ]
    epochs = {}
    for _, name, _, _ in parts:
        claim = await store.claim(name)
        epochs[name] = claim.epoch
        if claim.checkpoint:
            raise AlreadyThere(f"{usecase.full_name} has states already: backfill a deployment of another name")
    for _, name, states, _ in parts:
        for start in range(0, len(states), AT_ONCE):
            await store.put(name, epochs[name], states[start : start + AT_ONCE])
    marks = _marks(log, topics)
    for index, name, _, partition in reversed(parts):
        topic = topics.hops[index - 1] if index else topics.events
        offset = log.ends[topic.name][partition]
        await store.save(name, epochs[name], Checkpoint(offset, marks if index else b"", offset), [])
    return sum(len(states) for _, _, states, _ in parts)


def _by_partition(table: EntityTable, partitions: int) -> Iterator[States]:
    states = list(table.states().items())
    homes = partition_of(Spans.of([key for key, _ in states]), partitions)
    for partition in range(partitions):
        yield [states[row] for row in np.flatnonzero(homes == partition).tolist()]


def _marks(log: Log, topics: Topics) -> bytes:
    """Return the marks of a gate that has seen all that was read, and no watermark."""
    seen = np.array([*log.ends[topics.events.name], *log.ends[topics.labels.name]], np.int64) - 1
    return np.concatenate([seen, np.full_like(seen, NEVER)]).astype("<i8").tobytes()
