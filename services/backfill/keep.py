"""Folded states into the store, as if workers had folded them, with the offsets to go on from.

The order of effects:

1. every partition is claimed; where one has a checkpoint already, nothing is written;
2. the states are put beside no checkpoint: nobody reads them yet;
3. the model is announced;
4. the checkpoints are kept, the last stage's first.

A crash before 4 leaves nothing that counts but a model, and all of it may be done again. One within 4 leaves the
last stages ahead of the first, whose replay they drop as seen: start over under another name.
"""

from collections.abc import Callable, Iterator

import numpy as np

from schemas.topics import Topics
from services.backfill.log import Log
from streams.features.pipeline import Pipeline
from streams.features.seen import Seen
from streams.features.table import EntityTable
from streams.runtime.gate import NEVER, Marks
from streams.runtime.partitioner import partition_of
from streams.runtime.records import Spans
from streams.stores.state import Checkpoint, States, TrackingStore
from streams.usecases import UseCase

AT_ONCE = 5_000  # states in one write


class AlreadyThere(Exception):
    """The deployment has states: it has been started before."""


async def keep(
    store: TrackingStore,
    usecase: UseCase,
    topics: Topics,
    pipeline: Pipeline,
    log: Log,
    announce: Callable[[], object],
) -> int:
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
    announce()
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
    events, labels = (np.array(log.ends[topic.name], np.int64) - 1 for topic in (topics.events, topics.labels))
    folded = np.concatenate([events, labels])
    return Marks(folded, np.full_like(folded, NEVER), Seen.all_up_to(labels)).to_bytes()
