"""What has come of a campaign: scores, states, dead letters, history rows and the model, as they stand."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
import numpy as np
from cassandra.query import tuple_factory
from numpy.typing import NDArray

from schemas.events import ModelAnnouncement
from schemas.topics import Topic, Topics
from streams.runtime.dlq import ERROR, SOURCE
from streams.runtime.records import Records
from streams.usecases import FRAUD
from tests.chaos.logs import Poisoned, read, sift
from tests.chaos.oracle import CUSTOMER, digest
from tests.chaos.workload import Workload, number_of
from tests.local import cassandra_session

Features = msgspec.defstruct("Features", [(name, float) for name in FRAUD.features.names], gc=False)


class _Score(msgspec.Struct, gc=False):
    event_id: str
    features: Features  # type: ignore[valid-type]
    scored_at: int


_score = msgspec.json.Decoder(_Score).decode


@dataclass
class Scores:
    """The scores topic by event number: when first scored (ms, 0 for never), in which partition, and hashes of the
    vectors; `changed` counts repetitions with other features, `alien` scores of events there are not."""

    at: NDArray[np.int64]
    partition: NDArray[np.int64]
    features: NDArray[np.uint64]
    vectors: NDArray[np.uint64]
    total: int = 0
    alien: int = 0
    changed: list[int] = field(default_factory=list)


async def scores(kafka: str, topic: Topic, workload: Workload) -> Scores:
    """Read the scores topic."""
    n = workload.events
    found = Scores(np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.uint64), np.zeros(n, np.uint64))
    async for place, records in read(kafka, topic):
        _add(found, place.partition, sift(place, records, []))
    return found


def _add(found: Scores, partition: int, records: Records) -> None:
    decoded = [_score(value or b"") for value in records.values()]
    if not decoded:
        return
    numbers = np.array([number_of(one.event_id) for one in decoded])
    ours = (numbers >= 0) & (numbers < found.at.size)
    found.total += numbers.size
    found.alien += int((~ours).sum())
    vectors = np.array([msgspec.structs.astuple(one.features) for one in decoded])
    whole, first_stage = digest(vectors), digest(vectors[:, CUSTOMER])
    times = [one.scored_at for one in decoded]
    for row in np.flatnonzero(ours).tolist():
        number = numbers[row]
        if found.at[number] == 0:
            found.at[number], found.partition[number] = times[row], partition
            found.vectors[number], found.features[number] = whole[row], first_stage[row]
        elif found.vectors[number] != whole[row]:
            found.changed.append(int(number))


async def dead_letters(kafka: str, topic: Topic) -> tuple[list[Poisoned], int]:
    """Return the dead letters, each place once, and how many came again."""
    letters: dict[str, Poisoned] = {}
    repeated = 0
    async for _, records in read(kafka, topic):
        for row, (key, value) in enumerate(zip(records.keys(), records.values(), strict=True)):
            headers = dict(records.headers(row))
            place, reason = ((headers.get(name) or b"?").decode() for name in (SOURCE, ERROR))
            repeated += place in letters
            letters[place] = Poisoned(place, reason, key, value)
    return list(letters.values()), repeated


def history(address: str, keyspace: str, workload: Workload) -> tuple[NDArray[np.bool_], int]:
    """Return which events have a row in the history, by number, and how many rows are of others."""
    kept, alien = np.zeros(workload.events, bool), 0
    for (event_id,) in _rows(address, keyspace, "SELECT event_id FROM scores"):
        number = number_of(event_id)
        if 0 <= number < kept.size:
            kept[number] = True
        else:
            alien += 1
    return kept, alien


async def models(kafka: str, topics: Topics) -> tuple[ModelAnnouncement | None, ModelAnnouncement | None]:
    """Return the last announcement, and the last that is for learners."""
    last = resumable = None
    async for _, records in read(kafka, topics.models):
        for value in records.values():
            last = msgspec.json.decode(value or b"", type=ModelAnnouncement)
            resumable = last if last.course else resumable
    return last, resumable


def kinds(poison: list[Poisoned]) -> str:
    """Return how many there are of each reason, in words."""
    return ", ".join(f"{count} {reason}" for reason, count in sorted(Counter(one.reason for one in poison).items()))


def labels(address: str, keyspace: str) -> int:
    """Return how many labels the history keeps."""
    return sum(1 for _ in _rows(address, keyspace, "SELECT event_id FROM labels"))


def _rows(address: str, keyspace: str, statement: str) -> Iterator[tuple[str]]:
    with cassandra_session(address) as session:
        session.set_keyspace(keyspace)
        session.row_factory = tuple_factory
        session.default_fetch_size = 5000
        yield from session.execute(statement)
