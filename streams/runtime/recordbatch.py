"""Kafka's record batch, format v2, read and written over flat arrays: no Python object per record.

The layout is Kafka's `DefaultRecordBatch`: a header of 61 bytes, then records of varints and bytes.

    base offset i64 | length i32 | leader epoch i32 | magic i8 | CRC32C u32 | attributes i16 |
    last offset delta i32 | first timestamp i64 | max timestamp i64 | producer id i64 |
    producer epoch i16 | base sequence i32 | number of records i32

The kernels answer with a status instead of raising; `records.py` turns that into an error.
"""

import numpy as np
from numba.core import types
from numpy.typing import NDArray

from streams.kernels import BYTES, FLAG, INT, OUT_BYTES, OUT_I32, OUT_I64, VOID, kernel, many
from streams.kernels import I32 as I32_IN
from streams.kernels import I64 as I64_IN

OVERHEAD = 12  # base offset and length, which `length` itself does not count
HEADER = 61
MAGIC_AT = 16
CRC_AT = 17
ATTRIBUTES_AT = 21  # the CRC covers everything from here on
COUNT_AT = 57
SMALLEST_RECORD = 7
RECORD_OVERHEAD = 32  # at most: length, attributes, time and offset deltas, two sizes, no headers

CODEC_BITS = 0x07
LOG_APPEND_BIT = 0x08
CONTROL_BIT = 0x20

OK, BAD_MAGIC, BAD_CRC, BAD_STRUCTURE = 0, 1, 2, 3

U8 = NDArray[np.uint8]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]


def _crc_tables() -> NDArray[np.uint32]:
    """The eight tables of slicing-by-8 for the Castagnoli polynomial (RFC 3720, appendix B.4)."""
    tables = np.zeros((8, 256), np.uint32)
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        tables[0, byte] = crc
    for k in range(1, 8):
        tables[k] = (tables[k - 1] >> 8) ^ tables[0, tables[k - 1] & 0xFF]
    return tables


_T = _crc_tables()


@kernel(types.uint32(BYTES, types.uint64))
def _little_endian_4(buffer: U8, at: np.uint64) -> np.uint32:
    """Four bytes at `at`; an unsigned index spares Numba the check for a negative one."""
    return (
        np.uint32(buffer[at])
        | np.uint32(buffer[at + np.uint64(1)]) << np.uint32(8)
        | np.uint32(buffer[at + np.uint64(2)]) << np.uint32(16)
        | np.uint32(buffer[at + np.uint64(3)]) << np.uint32(24)
    )


@kernel(types.uint32(BYTES, types.uint64, types.uint64))
def crc32c(buffer: U8, start: int, end: int) -> int:
    """CRC-32C of `buffer[start:end]`."""
    crc, low = np.uint32(0xFFFFFFFF), np.uint32(0xFF)
    i = np.uint64(start)
    while i + np.uint64(8) <= end:
        word = crc ^ _little_endian_4(buffer, i)
        crc = (
            _T[7, word & low]
            ^ _T[6, (word >> np.uint32(8)) & low]
            ^ _T[5, (word >> np.uint32(16)) & low]
            ^ _T[4, word >> np.uint32(24)]
            ^ _T[3, buffer[i + np.uint64(4)]]
            ^ _T[2, buffer[i + np.uint64(5)]]
            ^ _T[1, buffer[i + np.uint64(6)]]
            ^ _T[0, buffer[i + np.uint64(7)]]
        )
        i += np.uint64(8)
    while i < end:
        crc = _T[0, (crc ^ buffer[i]) & low] ^ (crc >> np.uint32(8))
        i += np.uint64(1)
    return int(crc ^ np.uint32(0xFFFFFFFF))


@kernel(INT(BYTES, INT, INT))
def big_endian(buffer: U8, at: int, size: int) -> int:
    """The signed integer of `size` bytes at `at`."""
    value = int(np.int8(buffer[at]))
    for i in range(1, size):
        value = (value << 8) | int(buffer[at + i])
    return value


@kernel(VOID(OUT_BYTES, INT, INT, INT))
def put_big_endian(out: U8, at: int, size: int, value: int) -> None:
    """Write `value` as a signed integer of `size` bytes at `at`."""
    for i in range(size):
        out[at + i] = np.uint8((value >> (8 * (size - 1 - i))) & 0xFF)


@kernel(many(INT, 2)(BYTES, INT, INT))
def varint(buffer: U8, at: int, end: int) -> tuple[int, int]:
    """The zigzag varint at `at` and where it ends; -1 for the end if it is cut off or over-long."""
    raw = np.uint64(0)
    shift = 0
    while at < end and shift < 64:
        byte = np.uint64(buffer[at])
        raw |= (byte & np.uint64(0x7F)) << np.uint64(shift)
        at += 1
        if byte < np.uint64(0x80):
            return int(np.int64(raw >> np.uint64(1)) ^ -np.int64(raw & np.uint64(1))), at
        shift += 7
    return 0, -1


@kernel(INT(OUT_BYTES, INT, INT))
def put_varint(out: U8, at: int, value: int) -> int:
    """Write a zigzag varint at `at`; the answer is where it ends."""
    raw = np.uint64((value << 1) ^ (value >> 63))
    while raw > np.uint64(0x7F):
        out[at] = np.uint8((raw & np.uint64(0x7F)) | np.uint64(0x80))
        raw >>= np.uint64(7)
        at += 1
    out[at] = np.uint8(raw)
    return at + 1


@kernel(many(INT, 5)(BYTES, INT, FLAG))
def scan(buffer: U8, first_offset: int, check_crc: bool) -> tuple[int, int, int, int, int]:
    """Walk the whole batches of a fetch response.

    Answers status, end (of the last whole batch, or start of the bad one), the number of records outside
    control batches, the next offset to fetch, and the number of compressed batches. A batch that the
    broker cut off at the end is left out.
    """
    at, count, compressed, next_offset = 0, 0, 0, first_offset
    while at + OVERHEAD <= buffer.size:
        length = big_endian(buffer, at + 8, 4)
        if length < HEADER - OVERHEAD:
            return BAD_STRUCTURE, at, count, next_offset, compressed
        end = at + OVERHEAD + length
        if end > buffer.size:
            break
        if buffer[at + MAGIC_AT] != 2:
            return BAD_MAGIC, at, count, next_offset, compressed
        if check_crc and crc32c(buffer, at + ATTRIBUTES_AT, end) != np.uint32(big_endian(buffer, at + CRC_AT, 4)):
            return BAD_CRC, at, count, next_offset, compressed
        records = big_endian(buffer, at + COUNT_AT, 4)
        attributes = buffer[at + ATTRIBUTES_AT + 1]
        fits = records * SMALLEST_RECORD <= length or attributes & CODEC_BITS != 0
        if records < 0 or not fits:
            return BAD_STRUCTURE, at, count, next_offset, compressed
        if not attributes & CONTROL_BIT:
            compressed += (attributes & CODEC_BITS) != 0
            count += records
        # The last offset of a batch outlives compaction, so a batch emptied by it is stepped over.
        next_offset = max(next_offset, big_endian(buffer, at, 8) + big_endian(buffer, at + 23, 4) + 1)
        at = end
    return OK, at, count, next_offset, compressed


@kernel(many(INT, 2)(BYTES, INT, INT, OUT_I64, OUT_I64, OUT_I64, OUT_I32, OUT_I64, OUT_I32, OUT_I64, OUT_I32))
def index(  # noqa: PLR0911 (a kernel takes its columns one by one, and cannot raise)
    buffer: U8,
    end: int,
    first_offset: int,
    offsets: I64,
    timestamps: I64,
    key_start: I64,
    key_size: I32,
    value_start: I64,
    value_size: I32,
    header_start: I64,
    header_count: I32,
) -> tuple[int, int]:
    """Fill the spans of every record at or after `first_offset` of the uncompressed batches in
    `buffer[:end]`; answers status and how many there are."""
    at, n = 0, 0
    while at < end:
        base = big_endian(buffer, at, 8)
        batch_end = at + OVERHEAD + big_endian(buffer, at + 8, 4)
        attributes = buffer[at + ATTRIBUTES_AT + 1]
        first_time = big_endian(buffer, at + 27, 8)
        append_time = big_endian(buffer, at + 35, 8)
        records = big_endian(buffer, at + COUNT_AT, 4)
        pos = at + HEADER
        at = batch_end
        if attributes & CONTROL_BIT:
            continue
        for _ in range(records):
            length, pos = varint(buffer, pos, batch_end)
            if pos < 0 or length < 0 or length > batch_end - pos:
                return BAD_STRUCTURE, n
            record_end = pos + length
            time_delta, p = varint(buffer, pos + 1, record_end)
            if p < 0:
                return BAD_STRUCTURE, n
            offset_delta, p = varint(buffer, p, record_end)
            if p < 0:
                return BAD_STRUCTURE, n
            size, p = varint(buffer, p, record_end)
            if p < 0 or size > record_end - p:
                return BAD_STRUCTURE, n
            key_start[n], key_size[n] = p, max(size, -1)
            p += max(size, 0)
            size, p = varint(buffer, p, record_end)
            if p < 0 or size > record_end - p:
                return BAD_STRUCTURE, n
            value_start[n], value_size[n] = p, max(size, -1)
            p += max(size, 0)
            headers, p = varint(buffer, p, record_end)
            if p < 0 or headers < 0 or (headers == 0 and p != record_end):
                return BAD_STRUCTURE, n
            header_start[n], header_count[n] = p, headers
            pos = record_end
            offsets[n] = base + offset_delta
            timestamps[n] = append_time if attributes & LOG_APPEND_BIT else first_time + time_delta
            n += base + offset_delta >= first_offset
        if pos != batch_end:
            return BAD_STRUCTURE, n
    return OK, n


@kernel(VOID(OUT_BYTES, types.uint64, BYTES, types.uint64, INT))
def _copy(out: U8, at: int, source: U8, start: int, size: int) -> None:
    for i in range(np.uint64(max(size, 0))):
        out[at + i] = source[start + i]


@kernel(INT(INT))
def varint_size(value: int) -> int:
    """How many bytes `put_varint` needs for `value`."""
    raw = np.uint64((value << 1) ^ (value >> 63))
    size = 1
    while raw > np.uint64(0x7F):
        raw >>= np.uint64(7)
        size += 1
    return size


@kernel(VOID(OUT_BYTES, INT, INT, INT, INT))
def finish(out: U8, end: int, count: int, first_time: int, max_time: int) -> None:
    """Write the header of a batch whose records end at `end`; times in ms."""
    put_big_endian(out, 0, 8, 0)  # the broker assigns the offsets
    put_big_endian(out, 8, 4, end - OVERHEAD)
    put_big_endian(out, 12, 4, -1)  # leader epoch: unknown
    out[MAGIC_AT] = 2
    put_big_endian(out, ATTRIBUTES_AT, 2, 0)
    put_big_endian(out, 23, 4, count - 1)
    put_big_endian(out, 27, 8, first_time)
    put_big_endian(out, 35, 8, max_time)
    put_big_endian(out, 43, 8, -1)  # producer id, epoch and sequence: not idempotent
    put_big_endian(out, 51, 2, -1)
    put_big_endian(out, 53, 4, -1)
    put_big_endian(out, COUNT_AT, 4, count)
    put_big_endian(out, CRC_AT, 4, int(crc32c(out, ATTRIBUTES_AT, end)))


@kernel(many(INT, 2)(I32_IN, I32_IN, I64_IN, INT, INT))
def plan(key_size: I32, value_size: I32, rows: I64, first: int, max_bytes: int) -> tuple[int, int]:
    """How far `rows[first:]` goes into one batch of `max_bytes`, but at least one row, and a size that
    surely holds it."""
    size, i = HEADER, first
    while i < rows.size:
        row = rows[i]
        record = RECORD_OVERHEAD + max(int(key_size[row]), 0) + max(int(value_size[row]), 0)
        if i > first and size + record > max_bytes:
            break
        size += record
        i += 1
    return i, size


@kernel(many(INT, 2)(BYTES, I64_IN, I32_IN, BYTES, I64_IN, I32_IN, I64_IN, I64_IN, OUT_BYTES, INT, INT, INT, INT))
def write(
    keys: U8,
    key_start: I64,
    key_size: I32,
    values: U8,
    value_start: I64,
    value_size: I32,
    timestamps: I64,
    rows: I64,
    out: U8,
    at: int,
    index: int,
    first_time: int,
    max_time: int,
) -> tuple[int, int]:
    """Write `rows`, without headers, from `at` on as the records number `index` … of a batch; answers where they
    end and the latest time of the batch so far."""
    for row in rows:
        k, v = int(key_size[row]), int(value_size[row])
        time_delta = int(timestamps[row] - first_time)
        max_time = max(max_time, timestamps[row])
        body = 2 + varint_size(time_delta) + varint_size(index) + varint_size(k) + varint_size(v)
        at = put_varint(out, at, body + max(k, 0) + max(v, 0))
        out[at] = 0  # attributes: none are defined
        at = put_varint(out, at + 1, time_delta)
        at = put_varint(out, at, index)
        at = put_varint(out, at, k)
        _copy(out, at, keys, key_start[row], k)
        at = put_varint(out, at + max(k, 0), v)
        _copy(out, at, values, value_start[row], v)
        at += max(v, 0)
        out[at] = 0  # headers: none
        at += 1
        index += 1
    return at, max_time
