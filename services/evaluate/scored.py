"""Scored events from a Parquet file as `services.backtest` writes it, checked."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from msgspec import inspect
from numpy.typing import NDArray

from streams.decisions.policy import APPROVE, DECLINE, REVIEW
from streams.stores.columns import Column, FileError, holds_ids

DAY = 86_400_000  # ms
OWN = {"event_id", "event_time", "label", "score", "raw_score", "decision", "model_id"}
"""What the backtest says of an event; its entities are the file's other ids."""
ENTITY = "customer_id"
"""Whose precision is measured where nothing else is said and the file has it."""

Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class _Row(msgspec.Struct):
    """What a row must hold."""

    event_time: int
    label: int
    score: Share
    decision: str
    entity: str


_FIELDS = {field.name: field for field in inspect.type_info(_Row).fields}  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Scored:
    """n events in time order: times int64[n] (epoch ms), labels int8[n], scores float64[n], and for each kind of
    alarm, the one most often given first, which events it was given for, bool[n]. `entities` int64[n] numbers whose
    events they are, None where nobody said; `threshold` is the score that alarms begin at, None for decisions."""

    times: NDArray[np.int64]
    labels: NDArray[np.int8]
    scores: NDArray[np.float64]
    alarms: Mapping[str, NDArray[np.bool_]]
    entities: NDArray[np.int64] | None
    threshold: float | None = None

    def __len__(self) -> int:
        return len(self.times)

    @property
    def positives(self) -> int:
        """How many events are labelled 1."""
        return int(self.labels.sum())

    def take(self, rows: slice | NDArray[np.bool_] | NDArray[np.intp]) -> "Scored":
        """Return some of the events."""
        return replace(
            self,
            times=self.times[rows],
            labels=self.labels[rows],
            scores=self.scores[rows],
            alarms={name: given[rows] for name, given in self.alarms.items()},
            entities=None if self.entities is None else self.entities[rows],
        )


def read(path: Path, threshold: float | None = None, entity: str | None = None) -> Scored:
    """Return the events in `path`; alarms are its decisions, or the scores from `threshold` on if one is given.

    Raises FileError where the file has not what is needed.
    """
    try:
        with path.open("rb") as opened, pq.ParquetFile(opened) as file:
            there = file.schema_arrow.names
            entity = entity or (ENTITY if ENTITY in there else None)
            wanted = ["event_time", "label", "score"] + ["decision"] * (threshold is None) + [entity] * bool(entity)
            possible = [one.name for one in file.schema_arrow if holds_ids(one.type) and one.name not in OWN]
            if entity and entity not in possible:
                raise FileError(f"{path}: --entity: '{entity}' is none of its ids ({', '.join(possible)})")
            if missing := [name for name in wanted if name not in there]:
                hint = "; give a --threshold instead" if missing == ["decision"] else ""
                raise FileError(f"{path}: has no column {missing[0]} (it has {', '.join(there)}){hint}")
            table = file.read(columns=wanted)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or str(error).splitlines()[0]}") from None
    except pa.ArrowInvalid:
        raise FileError(f"{path}: is not a Parquet file") from None
    if not table.num_rows:
        raise FileError(f"{path}: has no rows")
    columns = {name: Column(path, name, table.column(name)) for name in table.column_names}
    scores = np.asarray(columns["score"].values(_FIELDS["score"]))
    scored = Scored(
        np.asarray(columns["event_time"].times(_FIELDS["event_time"].type)),
        np.asarray(columns["label"].labels()),
        scores,
        _decided(columns["decision"]) if threshold is None else {"alarm": scores >= threshold},
        _numbered(columns[entity]) if entity else None,
        threshold,
    )
    return scored.take(np.argsort(scored.times, kind="stable"))


def _decided(column: Column) -> dict[str, NDArray[np.bool_]]:
    decisions = column.values(_FIELDS["decision"])
    known = pa.array([APPROVE, REVIEW, DECLINE])
    if (row := pc.index(pc.is_in(decisions, known), False).as_py()) >= 0:
        raise FileError(
            f"{column.path}: row {row + 1}, column {column.name}: is none of {', '.join(known.to_pylist())}"
        )
    return {
        f"{REVIEW} or {DECLINE}": np.asarray(pc.not_equal(decisions, APPROVE)),
        DECLINE: np.asarray(pc.equal(decisions, DECLINE)),
    }


def _numbered(column: Column) -> NDArray[np.int64]:
    values = column.values(_FIELDS["entity"])
    return np.asarray(values.dictionary_encode().indices).astype(np.int64)
