"""One column of a file, checked as a whole: a struct field's type, length and bounds hold for every row."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import inspect

LATEST_MS = 32_503_679_999_999
"""The end of the year 2999: what is later is no time in milliseconds, and no picture has room for it."""


class FileError(ValueError):
    """The file cannot be used; the message names it, and the data row (from 1) and column if any."""


def holds_ids(type_: pa.DataType) -> bool:
    """Say whether a column of this type has strings, or what can be one; nothing but nulls has no type of its own."""
    plain = type_.value_type if pa.types.is_dictionary(type_) else type_
    known = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string, pa.types.is_null)
    return any(is_known(plain) for is_known in known)


@dataclass(frozen=True)
class Column:
    """One column of the file on its way to plain arrays; a refused value is an error with row and column."""

    path: Path
    name: str
    raw: pa.ChunkedArray

    def values(self, field: inspect.Field) -> pa.Array:
        """Return the column as `field` declares it: strings, int64 or float64; null only where the field may be."""
        kind, optional = field.type, not field.required
        if isinstance(kind, inspect.UnionType):
            kind = next(one for one in kind.types if not isinstance(one, inspect.NoneType))
        if not optional:
            self._refuse(pc.is_null(self.raw), "is missing")
        if isinstance(kind, inspect.StrType):
            return self._texts(kind)
        if isinstance(kind, inspect.FloatType):
            numbers = self._cast(pa.float64(), "number")
            self._refuse(pc.invert(pc.is_finite(numbers)), "is not a finite number")
        else:
            assert isinstance(kind, inspect.IntType), f"no column for a field of {kind}"
            numbers = self._cast(pa.int64(), "whole number")
        return self._bounded(numbers, kind)

    def times(self, kind: inspect.Type, latest: int = LATEST_MS) -> pa.Array:
        """Return the column as epoch milliseconds, int64, none after `latest`."""
        assert isinstance(kind, inspect.IntType)
        self._refuse(pc.is_null(self.raw), "is missing")
        type_ = self.raw.type
        if pa.types.is_integer(type_):
            times = self._cast(pa.int64(), "time in milliseconds, it is too large")
        elif pa.types.is_string(type_) or pa.types.is_large_string(type_):
            times = _milliseconds(self._parse_times())
        elif pa.types.is_timestamp(type_):
            times = _milliseconds(self.raw)
        else:
            raise self._error(0, f"is neither a timestamp nor integer milliseconds, but {type_}")
        self._bounded(times, kind)
        self._refuse(pc.greater(times, LATEST_MS), "lies after the year 2999: it is to be in milliseconds")
        self._refuse(pc.greater(times, latest), "lies in the future")
        return times

    def labels(self) -> pa.Array:
        """Return the column as int8, 0 or 1."""
        self._refuse(pc.is_null(self.raw), "is missing")
        labels = self._cast(pa.int64(), "label (0 or 1)")
        self._refuse(pc.invert(pc.is_in(labels, pa.array([0, 1]))), "is neither 0 nor 1")
        return labels.cast(pa.int8())

    def unique(self, ids: pa.Array) -> None:
        """Refuse an id that an earlier row has."""
        if pc.count_distinct(ids).as_py() == len(ids):
            return
        first: dict[str, int] = {}
        for row, one in enumerate(ids.to_pylist()):
            if (before := first.setdefault(one, row)) != row:
                raise self._error(row, f"repeats the id of row {before + 1}")

    def _texts(self, kind: inspect.StrType) -> pa.Array:
        if not holds_ids(self.raw.type):
            raise self._error(0, f"is neither a string nor an integer, but {self.raw.type}")
        texts = self.raw.cast(pa.string()).combine_chunks()
        lengths = pc.utf8_length(texts)
        if kind.min_length:
            self._refuse(pc.less(lengths, kind.min_length), "is empty")
        if kind.max_length is not None:
            self._refuse(pc.greater(lengths, kind.max_length), f"has more than {kind.max_length} characters")
        return texts

    def _bounded(self, numbers: pa.Array, kind: inspect.IntType | inspect.FloatType) -> pa.Array:
        if kind.ge is not None:
            self._refuse(pc.less(numbers, kind.ge), f"is less than {kind.ge:g}")
        if kind.le is not None:
            self._refuse(pc.greater(numbers, kind.le), f"is more than {kind.le:g}")
        return numbers

    def _cast(self, type_: pa.DataType, what: str) -> pa.Array:
        exact = not pa.types.is_floating(type_)
        try:
            return self.raw.cast(type_, safe=exact).combine_chunks()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise self._first_wrong(type_, exact, f"is not a {what}") from None

    def _parse_times(self) -> pa.ChunkedArray:
        for type_ in (pa.int64(), pa.timestamp("ns"), pa.timestamp("ns", "UTC")):
            try:
                # The first value says which of the three the column holds.
                self.raw.slice(0, 1).cast(type_)
            except pa.ArrowInvalid:
                continue
            try:
                return self.raw.cast(type_)
            except pa.ArrowInvalid:
                raise self._first_wrong(type_, True, "is not such a time as the first") from None
        raise self._error(0, "is neither a timestamp nor integer milliseconds")

    def _first_wrong(self, type_: pa.DataType, exact: bool, reason: str) -> FileError:
        """Return the error of the first row that cannot become `type_`, found by halving."""
        low, high = 0, len(self.raw)
        while high - low > 1:
            middle = (low + high) // 2
            try:
                self.raw.slice(low, middle - low).cast(type_, safe=exact)
                low = middle
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                high = middle
        return self._error(low, reason)

    def _refuse(self, wrong: Any, reason: str) -> None:
        if (row := pc.index(wrong, True).as_py()) >= 0:
            raise self._error(row, reason)

    def _error(self, row: int, reason: str) -> FileError:
        return FileError(f"{self.path}: row {row + 1}, column {self.name}: {reason}")


def _milliseconds(stamps: pa.ChunkedArray) -> pa.Array:
    if pa.types.is_timestamp(stamps.type):
        stamps = stamps.cast(pa.timestamp("ms", stamps.type.tz), safe=False)
    return stamps.cast(pa.int64()).combine_chunks()
