"""The port of the history: what must outlive Redis and Kafka, whatever store keeps it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from schemas.events import Label, Score

DAY_MS = 86_400_000
LATEST_MS = 2**53  # of any time in `schemas.events`

OnRetry = Callable[[Exception], None]
"""Told of every attempt that failed and will be made again."""


class StoreUnreachable(ConnectionError):
    """The store cannot be used from the start; one line that names it and the cause."""


class Scored(NamedTuple):
    """A score, the bytes it was read from, and its offset in its partition of the topic."""

    score: Score
    record: bytes
    offset: int


class KeptLabel(NamedTuple):
    """What an event is held to be, and where in the label topic the label stands that says so: partition and offset.

    `weight` is what it was learnt with, 0 if it was not. Labels that were kept before places were have none.
    """

    label: Label
    partition: int | None
    offset: int | None
    weight: float = 1.0


class EntityScore(NamedTuple):
    """One line of an entity's day; `event_time` in epoch ms."""

    event_id: str
    event_time: int
    score: float
    decision: str
    model_id: str


class HistoryStore(Protocol):
    """Every scored event and every label of one use case.

    Writes are idempotent and commute: whatever order they come in and however often, of an event id's scores
    the one made last stays, of its labels the one known last, and each stays whole. A write that returns is
    kept. While the store is away, calls wait and try again.
    """

    async def write_scores(self, scores: Sequence[Scored]) -> None:
        """Keep scores, by event and by each entity and day."""

    async def write_labels(self, labels: Sequence[KeptLabel]) -> None:
        """Keep labels by event."""

    async def scores(self, event_ids: Sequence[str]) -> dict[str, Score]:
        """Return the scores that are there, by event id."""

    async def labels(self, event_ids: Sequence[str]) -> dict[str, KeptLabel]:
        """Return the labels that are there, by event id."""

    async def entity_day(self, entity: str, id_: str, day: int, limit: int = 1000) -> list[EntityScore]:
        """Return the entity's newest events of a day (days since the epoch, UTC), newest first."""

    async def close(self) -> None:
        """Give the connections back."""


def score_written_at(scored: Scored) -> int:
    """Return the write time of a score in microseconds: of two scores the one made last wins.

    The offset tells apart what was scored in the same millisecond (one of the two wins, always the same one);
    the same record always has the same time, so that writing it again changes nothing.

    >>> score = Score("e", 0, {}, {}, 0.5, "accept", "m", "f", received_at=0, scored_at=7)
    >>> score_written_at(Scored(score, b"", 1234))
    7234
    """
    return scored.score.scored_at * 1000 + scored.offset % 1000


def label_order(label: Label) -> tuple[bool, int, int]:
    """Return what decides between an event's labels, the greatest wins: what was said over what was assumed, then
    what was known last, then the positive."""
    return not label.assumed, label.label_time, label.label


def label_written_at(label: Label) -> int:
    """Return the write time of a label in microseconds, in the order of `label_order`.

    What is only assumed is written as of before 1970, and so before anything that anybody said of whatever time.

    >>> label_written_at(Label("e", 1_700_000_000_000, 1)), label_written_at(Label("e", 1_800_000_000_000, 0, True))
    (1700000000000001, -9005399254740992)
    """
    return label.label_time - LATEST_MS if label.assumed else label.label_time * 1000 + label.label


def newest(scores: Sequence[Scored]) -> list[Scored]:
    """Return one score an event: of several the one that stays."""
    by_time = sorted(scores, key=lambda scored: (score_written_at(scored), scored.offset))
    return list({scored.score.event_id: scored for scored in by_time}.values())
