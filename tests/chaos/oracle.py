"""What must have come of a campaign: an uninterrupted run over the topics as they are now.

It reads what producers sent (events, labels) and what learners were given (examples), folds and learns each once, in
the order of its partition, in one process that nothing happens to.
"""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.events import Example, Label, Transaction
from schemas.topics import Topics
from streams.features.pipeline import Events, Labels, Pipeline
from streams.models.lessons import Lessons
from streams.runtime.records import Records
from streams.usecases import FRAUD
from tests.chaos.logs import Poisoned, read, sift
from tests.chaos.workload import Workload, number_of

_event = msgspec.json.Decoder(Transaction).decode
_label = msgspec.json.Decoder(Label).decode
_example = msgspec.json.Decoder(Example).decode

CUSTOMER = [FRAUD.features.names.index(name) for name in FRAUD.features.stages[0].names]
"""Where the first stage's features stand in a vector: each customer's order is that of the log."""


def digest(rows: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Return a hash of each row's bits, so that millions of vectors can be compared."""
    factors = np.random.default_rng(1).integers(1, 1 << 63, rows.shape[1], dtype=np.uint64) | np.uint64(1)
    mixed: NDArray[np.uint64] = (np.ascontiguousarray(rows).view(np.uint64) ^ factors) * factors
    hashes: NDArray[np.uint64] = np.bitwise_xor.reduce(mixed ^ (mixed >> np.uint64(29)), axis=1)
    return hashes


@dataclass
class Expected:
    """The oracle's answer; arrays are by event number, `states` by entity and id."""

    present: NDArray[np.bool_]
    features: NDArray[np.uint64]
    states: dict[tuple[str, bytes], bytes] = field(default_factory=dict)
    events: int = 0
    labels: int = 0
    labelled: set[str] = field(default_factory=set)
    changes: list[Label] = field(default_factory=list)
    """The labels that say of their event what was not known before."""
    poison: list[Poisoned] = field(default_factory=list)
    lessons: Lessons = field(
        default_factory=lambda: Lessons(
            FRAUD.recipes, FRAUD.features.names, FRAUD.features.fingerprint, FRAUD.verdicts.alarms
        )
    )
    examples: int = 0
    exampled: list[Label] = field(default_factory=list)


async def expected(kafka: str, topics: Topics, workload: Workload) -> Expected:
    """Read the topics and return what an uninterrupted run makes of them."""
    result = Expected(np.zeros(workload.events, bool), np.zeros(workload.events, np.uint64))
    labels = [label async for label in _labels(kafka, topics, result)]
    result.labelled = {label.event_id for label in labels}
    result.changes = changes(labels)
    terminals: dict[str, bytes] = {}
    pipeline = Pipeline(FRAUD.features)
    async for place, records in read(kafka, topics.events):
        _fold(pipeline, sift(place, records, result.poison), result, terminals)
    _fold_labels(pipeline, result.changes, terminals)
    for table in pipeline.tables:
        result.states |= {(table.stage.entity, key): state for key, state in table.states().items()}
    await _learn(kafka, topics, result)
    for topic in (*topics.hops, topics.scores):
        async for place, records in read(kafka, topic):
            sift(place, records, result.poison)
    return result


async def _labels(kafka: str, topics: Topics, result: Expected) -> AsyncIterator[Label]:
    async for place, records in read(kafka, topics.labels):
        sound = sift(place, records, result.poison)
        result.labels += len(sound)
        for value in sound.values():
            yield _label(value or b"")


def changes(labels: Iterable[Label]) -> list[Label]:
    """Return the labels, in the order of the log, after which their event is held to be something else: of several
    the one known last counts."""
    held: dict[str, Label] = {}
    found = list[Label]()
    for label in labels:
        before = held.get(label.event_id)
        if before is None or (label.label_time, label.label) > (before.label_time, before.label):
            held[label.event_id] = label
            if before is None or before.label != label.label:
                found.append(label)
    return found


def _fold(pipeline: Pipeline, records: Records, result: Expected, terminals: dict[str, bytes]) -> None:
    events = [_event(value or b"") for value in records.values()]
    if not events:
        return
    numbers = np.array([number_of(one.event_id) for one in events])
    terminals.update({one.event_id: one.terminal_id.encode() for one in events if one.event_id in result.labelled})
    keys = {
        "customer": [one.customer_id.encode() for one in events],
        "terminal": [one.terminal_id.encode() for one in events],
    }
    vectors = pipeline.fold(
        Events(
            [one.event_id.encode() for one in events],
            np.array([one.event_time for one in events]),
            keys,
            np.array([[one.amount] for one in events]),
        ),
        Labels([], np.array([], np.int64), {"customer": [], "terminal": []}, np.array([])),
    )
    fresh = ~np.isnan(vectors).any(axis=1) & ~result.present[numbers]
    first = numbers[fresh][::-1]  # of what is folded twice the first time counts
    result.features[first] = digest(vectors[fresh][::-1][:, CUSTOMER])
    result.events += len(events)
    result.present[numbers] = True


def _fold_labels(pipeline: Pipeline, labels: list[Label], terminals: dict[str, bytes]) -> None:
    keys = [terminals[one.event_id] for one in labels]
    pipeline.fold(
        Events([], np.array([], np.int64), {"customer": [], "terminal": []}, np.zeros((0, 1))),
        Labels(
            [one.event_id.encode() for one in labels],
            np.array([one.label_time for one in labels], np.int64),
            {"customer": [b""] * len(keys), "terminal": keys},
            np.array([one.label for one in labels], np.float64),
        ),
    )


async def _learn(kafka: str, topics: Topics, result: Expected) -> None:
    """Learn every example in its order, those of one label once."""
    seen = set[tuple[int | None, int | None]]()
    async for place, records in read(kafka, topics.examples):
        result.lessons.offsets[place.partition] = int(records.offsets[-1]) + 1
        for value in sift(place, records, result.poison).values():
            example = _example(value or b"")
            result.examples += 1
            if (source := (example.label_partition, example.label_offset)) in seen:
                continue
            seen.add(source)
            result.lessons.seen.add(example.label_partition or 0, example.label_offset or 0)
            result.exampled.append(Label(example.event_id, example.label_time, example.label))
            # Without its place it is new to the lessons: what comes twice was told above, by other means.
            result.lessons.take(msgspec.structs.replace(example, label_partition=None, label_offset=None))
