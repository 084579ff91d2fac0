"""What an uninterrupted run would have come to: every entity's events folded once, in the order they came."""

from collections.abc import Sequence

import numpy as np

from schemas.events import Transaction
from streams.features.spec import Over
from streams.features.table import EntityTable
from streams.features.vector import assemble
from streams.usecases import FRAUD

States = dict[tuple[str, bytes], bytes]
"""State bytes by stage and entity."""


def expected(events: Sequence[Transaction]) -> tuple[dict[str, bytes], States]:
    """Return each event's feature vector as bytes, and every state, of events folded in the order given.

    No event comes twice. The order is the stages' too where all events of a terminal come from one partition.
    """
    ids = [event.event_id.encode() for event in events]
    times = np.array([event.event_time for event in events], np.int64)
    amounts = np.array([event.amount for event in events]).reshape(-1, 1)
    kinds = np.full(len(events), Over.EVENTS, np.int8)
    values = np.hstack([amounts, np.zeros_like(amounts)])
    staged, states = [], States()
    for stage in FRAUD.features.stages:
        table = EntityTable(stage, FRAUD.features)
        keys = [getattr(event, stage.key).encode() for event in events]
        staged.append(table.fold_once(ids, keys, kinds, times, values)[0])
        states |= {(stage.entity, key): state for key, state in table.states().items()}
    vectors = assemble(FRAUD.features, times, amounts, staged)
    return {event.event_id: vector.tobytes() for event, vector in zip(events, vectors, strict=True)}, states
