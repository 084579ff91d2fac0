"""Compressed record batches inflated, within a bound."""

import gzip
import io
from collections.abc import Callable
from functools import partial

import numpy as np
from aiokafka import codec
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from streams.runtime import recordbatch as rb

MAX_INFLATED = 64 << 20  # bytes that one fetch of a partition may inflate to
UNREAD_BATCH = "headrace-unread-batch"  # the header of a record whose value is a batch that cannot be inflated


class CorruptRecordsError(Exception):
    """Bytes that are not whole, sound record batches of format v2."""


def inflate(buffer: rb.U8, end: int) -> rb.U8:
    """The same batches uncompressed, as many as MAX_INFLATED takes; their checksums are left as they were.

    A batch that is too large or not sound becomes one record, so that it is buried like any other that cannot be
    read, and does not end one worker after the other.
    """
    parts: list[bytes] = []
    at = size = 0
    while at < end:
        batch_end = at + rb.OVERHEAD + rb.big_endian(buffer, at + 8, 4)
        batch = buffer[at:batch_end].tobytes()
        attributes = batch[rb.ATTRIBUTES_AT + 1]
        if attributes & rb.CODEC_BITS and not attributes & rb.CONTROL_BIT:
            batch = _uncompressed(batch, attributes & rb.CODEC_BITS)
        size += len(batch)
        if parts and size > MAX_INFLATED:
            break  # the rest is fetched again
        parts.append(batch)
        at = batch_end
    return np.frombuffer(b"".join(parts), np.uint8)


def _uncompressed(batch: bytes, number: int) -> bytes:
    try:
        body = _decompress(number, batch[rb.HEADER :])
    except _UnfitError as error:
        return _as_record(batch, str(error))
    header = bytearray(batch[: rb.HEADER])
    header[8:12] = (rb.HEADER - rb.OVERHEAD + len(body)).to_bytes(4, "big")
    header[rb.ATTRIBUTES_AT + 1] &= ~rb.CODEC_BITS
    return bytes(header) + body


def _as_record(batch: bytes, reason: str) -> bytes:
    """A batch of one record, the last one's offset, whose value is `batch` as it came."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, len(batch))
    time = max(0, int.from_bytes(batch[35:43], "big", signed=True))
    builder.append(0, timestamp=time, key=None, value=batch, headers=[(UNREAD_BATCH, reason.encode())])
    record = bytearray(builder.build())
    offset = int.from_bytes(batch[:8], "big") + int.from_bytes(batch[23:27], "big")
    record[:8] = offset.to_bytes(8, "big")
    return bytes(record)


class _UnfitError(Exception):
    """A compressed batch that cannot be inflated, and why."""


def _gunzip(body: bytes) -> bytes:
    with gzip.open(io.BytesIO(body)) as file:
        return file.read(MAX_INFLATED + 1)


def _bounded(name: str, body: bytes) -> bytes:
    """Inflate into a buffer that is only touched as far as it is filled."""
    buffer = np.empty(MAX_INFLATED, np.uint8)
    return buffer[: getattr(codec.cramjam, name).decompress_into(body, buffer)].tobytes()


_CODECS: dict[int, tuple[str, Callable[[], bool], Callable[[bytes], bytes]]] = {
    1: ("gzip", codec.has_gzip, _gunzip),
    2: ("snappy", codec.has_snappy, codec.snappy_decode),  # 21 times its size at the most
    3: ("lz4", codec.has_lz4, partial(_bounded, "lz4")),
    4: ("zstd", codec.has_zstd, partial(_bounded, "zstd")),
}


def _decompress(number: int, body: bytes) -> bytes:
    if number not in _CODECS:
        raise _UnfitError(f"the batch is compressed with the unknown codec {number}")
    name, available, decode = _CODECS[number]
    if not available():
        raise CorruptRecordsError(f"a record batch is compressed with {name}, which needs the package cramjam")
    try:
        inflated = decode(body)
    except Exception as error:
        raise _UnfitError(f"the batch is not sound {name}, or above {MAX_INFLATED >> 20} MiB: {error}") from error
    if len(inflated) > MAX_INFLATED:
        raise _UnfitError(f"the batch is above {MAX_INFLATED >> 20} MiB of {name}")
    return inflated
