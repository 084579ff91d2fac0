"""The history in memory: the reference that every other store must equal."""

from collections import defaultdict
from collections.abc import Sequence
from typing import TypeVar

from schemas.events import Score
from streams.stores.history import DAY_MS, EntityScore, KeptLabel, Scored, label_written_at, score_written_at

K = TypeVar("K")
V = TypeVar("V")


class MemoryHistory:
    """A HistoryStore in dictionaries, without a time to live."""

    def __init__(self) -> None:
        self._scores: dict[str, tuple[int, Scored]] = {}
        self._labels: dict[str, tuple[int, KeptLabel]] = {}
        self._days: dict[tuple[str, str, int], dict[tuple[int, str], tuple[int, EntityScore]]] = defaultdict(dict)

    async def write_scores(self, scores: Sequence[Scored]) -> None:
        """Keep scores, by event and by each entity and day."""
        for scored in scores:
            score, time = scored.score, score_written_at(scored)
            _put(self._scores, score.event_id, time, scored)
            row = EntityScore(score.event_id, score.event_time, score.score, score.decision, score.model_id)
            for entity, id_ in score.entities.items():
                day = self._days[entity, id_, score.event_time // DAY_MS]
                _put(day, (-score.event_time, score.event_id), time, row)

    async def write_labels(self, labels: Sequence[KeptLabel]) -> None:
        """Keep labels by event."""
        for kept in labels:
            _put(self._labels, kept.label.event_id, label_written_at(kept.label), kept)

    async def scores(self, event_ids: Sequence[str]) -> dict[str, Score]:
        """Return the scores that are there, by event id."""
        return {id_: self._scores[id_][1].score for id_ in event_ids if id_ in self._scores}

    async def labels(self, event_ids: Sequence[str]) -> dict[str, KeptLabel]:
        """Return the labels that are there, by event id."""
        return {id_: self._labels[id_][1] for id_ in event_ids if id_ in self._labels}

    async def entity_day(self, entity: str, id_: str, day: int, limit: int = 1000) -> list[EntityScore]:
        """Return the entity's newest events of a day (days since the epoch, UTC), newest first."""
        rows = self._days.get((entity, id_, day), {})
        return [row for _, (_, row) in sorted(rows.items())[:limit]]

    async def close(self) -> None:
        """Nothing to give back."""


def _put(table: dict[K, tuple[int, V]], key: K, time: int, value: V) -> None:
    """Write unless what is there is newer, as Cassandra does cell by cell."""
    if key not in table or table[key][0] <= time:
        table[key] = time, value
