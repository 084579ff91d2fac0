"""A Parquet or CSV file of events, with a column of labels, as validated columns.

The use case's event struct is the schema: each field's type, length and bounds hold for every row, ids occur
once, labels are 0 or 1. Rows come back in event-time order, rows of one time in the file's order. Ids may be
strings or integers; times are timestamps (UTC where they name no zone) or integer milliseconds.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from msgspec import inspect
from numpy.typing import NDArray

from streams.stores.columns import LATEST_MS, Column, FileError
from streams.usecases import UseCase

__all__ = ["Events", "FileError", "mapping", "milliseconds", "read"]

LABEL = "label"
PARQUET_MAGIC = b"PAR1"
LONGEST_MS = 3650 * 86_400_000
UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclass(frozen=True)
class Events:
    """Events in time order: `columns` holds the fields in the file, `labels` a 0 or 1 an event, if any."""

    usecase: UseCase
    columns: Mapping[str, pa.Array]
    labels: NDArray[np.int8] | None

    def __len__(self) -> int:
        return len(self.columns[self.usecase.event_id])

    @property
    def event_ids(self) -> list[str]:
        """The events' ids."""
        return self.columns[self.usecase.event_id].to_pylist()  # type: ignore[no-any-return]

    @property
    def times(self) -> NDArray[np.int64]:
        """The events' times, epoch ms, never falling."""
        return np.asarray(self.columns[self.usecase.event_time])

    @property
    def values(self) -> NDArray[np.float64]:
        """The numeric fields that are features themselves: float64[events, values]."""
        return np.stack([np.asarray(self.columns[name]) for name in self.usecase.features.values], axis=1)

    def keys(self, field: str) -> list[bytes]:
        """Return the entity ids in `field`, as Kafka's keys hold them."""
        return self.columns[field].cast(pa.binary()).to_pylist()  # type: ignore[no-any-return]

    def structs(self) -> list[Any]:
        """Return the events as structs of the use case."""
        rows = [
            self.columns[field.name].to_pylist() if field.name in self.columns else repeat(field.default)
            for field in _fields(self.usecase)
        ]
        return [self.usecase.event(*row) for row in zip(*rows, strict=False)]

    def head(self, count: int) -> "Events":
        """Return the first `count` events."""
        return self._slice(0, count)

    def slices(self, rows: int = 65_536) -> Iterator["Events"]:
        """Yield the events in slices of up to `rows`, without copying them."""
        for start in range(0, len(self), rows):
            yield self._slice(start, rows)

    def _slice(self, start: int, rows: int) -> "Events":
        columns = {name: column.slice(start, rows) for name, column in self.columns.items()}
        return replace(self, columns=columns, labels=None if self.labels is None else self.labels[start : start + rows])


def mapping(text: str) -> dict[str, str]:
    """Return which column of a file holds which field, of `--columns field=COLUMN,…`; raise ValueError.

    >>> mapping("event_id=ID,label=IS_FRAUD")
    {'event_id': 'ID', 'label': 'IS_FRAUD'}
    """
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if wrong := [field for field, _, column in pairs if not field.strip() or not column.strip()]:
        raise ValueError(f"'{wrong[0]}': must be field=COLUMN,field=COLUMN,…")
    return {field.strip(): column.strip() for field, _, column in pairs}


def milliseconds(text: str) -> int:
    """Return a duration such as 7d, 20s or 250ms in milliseconds; raise ValueError unless it is more than 0.

    >>> milliseconds("7d"), milliseconds("1.5s")
    (604800000, 1500)
    """
    parts = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)", text.strip())
    if not parts or not 0 < (length := round(float(parts[1]) * UNITS_MS[parts[2]])) <= LONGEST_MS:
        raise ValueError(f"'{text}': must be a duration above 0, such as 7d, 12h, 20s or 250ms, 10 years at most")
    return length


def read(path: Path, usecase: UseCase, columns: Mapping[str, str], latest: int = LATEST_MS) -> Events:
    """Return the events of the Parquet or CSV file at `path`; `columns` names the column of a field (or of
    `label`) that is not called like it, and no event may be later than `latest` (epoch ms).

    Raises FileError.
    """
    fields = {field.name: field for field in _fields(usecase)}
    if unknown := sorted(set(columns) - {*fields, LABEL}):
        raise FileError(f"--columns: '{unknown[0]}' is none of {', '.join((*fields, LABEL))}")
    try:
        chosen, table = _load(path, lambda there: _choose(path, fields, columns, there))
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from None
    except pa.ArrowInvalid as error:
        raise FileError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
    if not table.num_rows:
        raise FileError(f"{path}: has no rows")
    converted = {}
    for name, column in chosen.items():
        reader = Column(path, column, table.column(column))
        if name == usecase.event_time:
            converted[name] = reader.times(fields[name].type, latest)
        else:
            converted[name] = reader.labels() if name == LABEL else reader.values(fields[name])
        if name == usecase.event_id:
            reader.unique(converted[name])
    return _in_order(usecase, converted)


def _fields(usecase: UseCase) -> tuple[inspect.Field, ...]:
    described = inspect.type_info(usecase.event)
    assert isinstance(described, inspect.StructType)
    return described.fields


def _load(path: Path, choose: Callable[[list[str]], dict[str, str]]) -> tuple[dict[str, str], pa.Table]:
    with path.open("rb") as file:
        magic = file.read(len(PARQUET_MAGIC))
    if magic == PARQUET_MAGIC:
        with pyarrow.parquet.ParquetFile(path, memory_map=True) as parquet:
            chosen = choose(parquet.schema_arrow.names)
            return chosen, parquet.read(columns=list(dict.fromkeys(chosen.values())))
    if path.suffix in {".parquet", ".pq"}:
        raise FileError(f"{path}: is not a Parquet file")
    return _load_csv(path, choose)


def _load_csv(path: Path, choose: Callable[[list[str]], dict[str, str]]) -> tuple[dict[str, str], pa.Table]:
    try:
        with pa.input_stream(path) as stream:
            header = next(csv.reader(io.TextIOWrapper(stream, "utf-8-sig")), [])
    except (UnicodeDecodeError, csv.Error):
        raise FileError(f"{path}: is neither a Parquet nor a CSV file") from None
    chosen = choose(header)

    ragged: list[Any] = []

    def stop(row: Any) -> str:
        ragged.append(row)
        return "error"

    try:
        table = pyarrow.csv.read_csv(
            path,
            # One thread knows the number of a bad row. All is text here: an id of 007 is not 7.
            read_options=pyarrow.csv.ReadOptions(use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(invalid_row_handler=stop, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=list(dict.fromkeys(chosen.values())),
                column_types=dict.fromkeys(header, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid:
        for row in ragged:
            what = f"has {row.actual_columns} columns, the header {row.expected_columns}"
            raise FileError(f"{path}: row {row.number - 1}: {what}") from None
        raise
    return chosen, table


def _choose(
    path: Path, fields: Mapping[str, inspect.Field], columns: Mapping[str, str], there: list[str]
) -> dict[str, str]:
    """Return the file's column of each field that it has, and of the label."""
    chosen = {}
    for name in (*fields, LABEL):
        column = columns.get(name, name)
        required = name in columns or (name in fields and fields[name].required)
        if there.count(column) > 1:
            raise FileError(f"{path}: has column {column} twice")
        if column in there:
            chosen[name] = column
        elif required:
            raise FileError(
                f"{path}: has no column {column} for {name} (it has {', '.join(there)}); name it by --columns"
            )
    return chosen


def _in_order(usecase: UseCase, columns: dict[str, pa.Array]) -> Events:
    times = np.asarray(columns[usecase.event_time])
    if np.any(times[1:] < times[:-1]):
        order = pa.array(np.argsort(times, kind="stable"))
        columns = {name: column.take(order) for name, column in columns.items()}
    labels = columns.pop(LABEL, None)
    return Events(usecase, columns, None if labels is None else np.asarray(labels))
