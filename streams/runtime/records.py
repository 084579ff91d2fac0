"""The records of a partition as spans of one buffer: parsed from Kafka's bytes, built into Kafka's bytes.

Transactions are not supported: records of an aborted one would be read (READ_UNCOMMITTED).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.runtime import recordbatch as rb
from streams.runtime.compression import CorruptRecordsError, inflate

Header = tuple[str, bytes | None]
Rows = NDArray[np.int64] | NDArray[np.intp] | NDArray[np.bool_] | slice

MAX_BATCH_BYTES = 900_000  # the broker's default limit for a batch is 1 MiB


class Spans(NamedTuple):
    """n byte strings inside one buffer: `buffer[start:start + size]`, a size of -1 is a null."""

    buffer: rb.U8
    start: rb.I64
    size: rb.I32

    @classmethod
    def of(cls, items: Sequence[bytes | None]) -> "Spans":
        """Lay byte strings end to end."""
        size = np.fromiter((-1 if item is None else len(item) for item in items), np.int32, len(items))
        start = np.zeros(len(items), np.int64)
        np.cumsum(np.maximum(size[:-1], 0), out=start[1:])
        return cls(np.frombuffer(b"".join(filter(None, items)), np.uint8), start, size)

    def take(self, rows: Rows) -> "Spans":
        """The spans of some rows, over the same buffer."""
        return Spans(self.buffer, self.start[rows], self.size[rows])

    def to_list(self) -> list[bytes | None]:
        """The byte strings as Python objects, for whatever needs them one by one."""
        if not self.size.size:
            return []
        low, high = int(self.start.min()), int((self.start + self.size).max())
        data = self.buffer[low:high].tobytes()
        spans = zip((self.start - low).tolist(), self.size.tolist(), strict=True)
        return [None if size < 0 else data[start : start + size] for start, size in spans]


@dataclass(frozen=True, slots=True, eq=False)
class Records:
    """n records of one partition in offset order, as arrays of length n over `buffer`.

    Timestamps are milliseconds since the epoch; sizes of -1 are nulls. Nothing is copied out of the
    buffer until `keys`, `values` or `headers` is called.
    """

    buffer: rb.U8
    offsets: rb.I64
    timestamps: rb.I64
    key_start: rb.I64
    key_size: rb.I32
    value_start: rb.I64
    value_size: rb.I32
    header_start: rb.I64
    header_count: rb.I32

    def __len__(self) -> int:
        return self.offsets.size

    @classmethod
    def of(
        cls,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        offsets: Sequence[int] | rb.I64,
        timestamps: Sequence[int] | rb.I64,
        headers: Sequence[Sequence[Header]] | None = None,
    ) -> "Records":
        """Records from Python objects, for tests and for simulation in memory."""
        n = len(keys)
        packed = [_pack_headers(h) for h in headers] if headers is not None else [b""] * n
        spans = Spans.of([*keys, *values, *packed])
        return cls(
            spans.buffer,
            np.asarray(offsets, np.int64),
            np.asarray(timestamps, np.int64),
            spans.start[:n],
            spans.size[:n],
            spans.start[n : 2 * n],
            spans.size[n : 2 * n],
            spans.start[2 * n :],
            np.fromiter(map(len, headers) if headers is not None else [0] * n, np.int32, n),
        )

    @property
    def key_spans(self) -> Spans:
        return Spans(self.buffer, self.key_start, self.key_size)

    @property
    def value_spans(self) -> Spans:
        return Spans(self.buffer, self.value_start, self.value_size)

    @property
    def has_headers(self) -> NDArray[np.bool_]:
        return self.header_count > 0

    def keys(self) -> list[bytes | None]:
        """Every key as bytes."""
        return self.key_spans.to_list()

    def values(self) -> list[bytes | None]:
        """Every value as bytes."""
        return self.value_spans.to_list()

    def headers(self, i: int) -> tuple[Header, ...]:
        """The headers of record `i`, read now; what is not UTF-8 in a name is replaced."""
        return tuple(self._read_headers(i))

    def _read_headers(self, i: int) -> Iterator[Header]:
        at = int(self.header_start[i])
        for _ in range(self.header_count[i]):
            name, at = self._read_bytes(at)
            value, at = self._read_bytes(at)
            yield (name or b"").decode(errors="replace"), value

    def _read_bytes(self, at: int) -> tuple[bytes | None, int]:
        size, at = rb.varint(self.buffer, at, self.buffer.size)
        if at < 0 or size > self.buffer.size - at:
            raise CorruptRecordsError("a record's headers do not add up")
        return (None, at) if size < 0 else (self.buffer[at : at + size].tobytes(), at + size)

    @classmethod
    def concatenate(cls, parts: Sequence["Records"]) -> "Records":
        """The records of all parts, one after the other."""
        if len(parts) == 1:
            return parts[0]
        shifts = np.cumsum([0, *(part.buffer.size for part in parts[:-1])])

        def joined(name: str) -> NDArray[Any]:
            return np.concatenate([getattr(part, name) for part in parts])

        def moved(name: str) -> rb.I64:
            return np.concatenate([getattr(part, name) + shift for part, shift in zip(parts, shifts, strict=True)])

        return cls(
            buffer=joined("buffer"),
            offsets=joined("offsets"),
            timestamps=joined("timestamps"),
            key_start=moved("key_start"),
            key_size=joined("key_size"),
            value_start=moved("value_start"),
            value_size=joined("value_size"),
            header_start=moved("header_start"),
            header_count=joined("header_count"),
        )

    def take(self, rows: Rows) -> "Records":
        """Some of the records, over the same buffer."""
        return Records(
            self.buffer,
            self.offsets[rows],
            self.timestamps[rows],
            self.key_start[rows],
            self.key_size[rows],
            self.value_start[rows],
            self.value_size[rows],
            self.header_start[rows],
            self.header_count[rows],
        )


def parse(data: bytes | memoryview, first_offset: int) -> tuple[Records, int]:
    """Read the concatenated record batches of a fetch response.

    Records below `first_offset`, control batches and a last batch that the broker cut off are left out.
    Answers the records and the offset to fetch next, which may lie past the last record (compaction).
    Raises CorruptRecordsError; no part of a bad response is used.
    """
    buffer = np.frombuffer(data, np.uint8)
    end, count, next_offset, compressed = _scan(buffer, first_offset, check_crc=True)
    if compressed:
        buffer = inflate(buffer, end)
        end, count, next_offset, _ = _scan(buffer, first_offset, check_crc=False)
    offsets, timestamps, key_start, value_start, header_start = np.empty((5, count), np.int64)
    key_size, value_size, header_count = np.empty((3, count), np.int32)
    parsed = Records(
        buffer, offsets, timestamps, key_start, key_size, value_start, value_size, header_start, header_count
    )
    status, n = rb.index(
        buffer,
        end,
        first_offset,
        offsets,
        timestamps,
        key_start,
        key_size,
        value_start,
        value_size,
        header_start,
        header_count,
    )
    if status != rb.OK:
        raise CorruptRecordsError(f"a record batch fetched from offset {first_offset} {_REASONS[status]}")
    return (parsed if n == count else parsed.take(slice(n))), next_offset


_REASONS = {
    rb.BAD_MAGIC: "has another format than v2",
    rb.BAD_CRC: "has a wrong checksum",
    rb.BAD_STRUCTURE: "does not add up",
}


def _scan(buffer: rb.U8, first_offset: int, check_crc: bool) -> tuple[int, int, int, int]:
    status, end, count, next_offset, compressed = rb.scan(buffer, first_offset, check_crc)
    if status != rb.OK:
        raise CorruptRecordsError(f"a record batch fetched from offset {next_offset} {_REASONS[status]}")
    return end, count, next_offset, compressed


class Piece(NamedTuple):
    """Records to be written: keys and values may lie in different buffers, `rows` picks and orders them.

    timestamps int64 in ms; `size` is a number of bytes that surely holds them as a batch.
    """

    keys: Spans
    values: Spans
    timestamps: rb.I64
    rows: rb.I64
    size: int


def pieces(
    keys: Spans,
    values: Spans,
    timestamps: rb.I64,
    rows: rb.I64 | None = None,
    max_bytes: int = MAX_BATCH_BYTES,
) -> Iterator[Piece]:
    """Cut records into pieces of at most `max_bytes`; a record that is too large gets a piece of its own."""
    if rows is None:
        rows = np.arange(timestamps.size)
    first = 0
    while first < rows.size:
        last, size = rb.plan(keys.size, values.size, rows, first, max_bytes)
        yield Piece(keys, values, timestamps, rows[first:last], size)
        first = last


def join(parts: Sequence[Piece]) -> memoryview:
    """Write pieces as one v2 batch, ready to be sent; no compression, no headers."""
    out = np.empty(sum(part.size for part in parts), np.uint8)
    first_time = max_time = int(parts[0].timestamps[parts[0].rows[0]])
    at, index = rb.HEADER, 0
    for keys, values, timestamps, rows, _ in parts:
        at, max_time = rb.write(*keys, *values, timestamps, rows, out, at, index, first_time, max_time)
        index += rows.size
    rb.finish(out, at, index, first_time, max_time)
    return out[:at].data


def build(
    keys: Spans,
    values: Spans,
    timestamps: rb.I64,
    rows: rb.I64 | None = None,
    max_bytes: int = MAX_BATCH_BYTES,
) -> list[memoryview]:
    """Write records as v2 batches, ready to be sent, each of one partition and at most `max_bytes`."""
    return [join([piece]) for piece in pieces(keys, values, timestamps, rows, max_bytes)]


def batch_count(batch: bytes | memoryview) -> int:
    """How many records a batch says it holds."""
    return int.from_bytes(batch[rb.COUNT_AT : rb.COUNT_AT + 4], "big")


def _pack_headers(headers: Sequence[Header]) -> bytes:
    return b"".join(
        _pack_varint(-1 if item is None else len(item)) + (item or b"")
        for name, value in headers
        for item in (name.encode(), value)
    )


def _pack_varint(value: int) -> bytes:
    out = np.empty(10, np.uint8)
    return out[: rb.put_varint(out, 0, value)].tobytes()
