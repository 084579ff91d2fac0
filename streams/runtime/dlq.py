"""Dead letters: a record that cannot be processed keeps its bytes, key and headers and gains its reason.

What came in a compressed batch may be larger than any topic takes. Such a value or key is cut, with headers that
say its size and SHA-256, and headers beyond their limit are left out and counted: the burial never fails.

A letter that is sent back to its topic (`services.dlq`) takes its attempts along, so that one that dies again and
again is parked in the end.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

from schemas.codec import Poison
from streams.runtime.records import Header, Records

ERROR, MESSAGE, SOURCE, ATTEMPT = "headrace-error", "headrace-message", "headrace-source", "headrace-attempt"
VALUE_BYTES, VALUE_SHA256 = "headrace-value-bytes", "headrace-value-sha256"
KEY_BYTES, KEY_SHA256 = "headrace-key-bytes", "headrace-key-sha256"
HEADERS_LEFT_OUT = "headrace-headers-left-out"

MAX_VALUE, MAX_KEY, MAX_HEADERS = 4 << 20, 1 << 20, 1 << 20  # bytes; together below what the topic takes
HEADER_OVERHEAD = 16  # bytes, at most: two sizes

MAX_ATTEMPTS = 5
"""A letter that has failed so often is parked: it is not sent back unless someone insists."""


@dataclass(frozen=True)
class DeadLetter:
    """What goes to the DLQ topic of the use case; `reason` is counted."""

    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
    reason: str


def dead_letter(records: Records, row: int, topic: str, partition: int, poison: Poison) -> DeadLetter:
    """Return record `row` of a batch as a dead letter, counting how often it has been tried."""
    all_headers = records.headers(row)
    attempt = 1 + attempts(all_headers)
    headers, left_out = _bounded(all_headers)
    ours = {ERROR, MESSAGE, SOURCE, ATTEMPT}
    one = records.take(slice(row, row + 1))
    key, of_key = _cut(one.keys()[0], MAX_KEY, KEY_BYTES, KEY_SHA256)
    value, of_value = _cut(one.values()[0], MAX_VALUE, VALUE_BYTES, VALUE_SHA256)
    return DeadLetter(
        key=key,
        value=value,
        headers=(
            *of_value,  # first, so that they stay if the letter is replayed and fails again
            *of_key,
            *left_out,
            *((name, value) for name, value in headers if name not in ours),
            (ERROR, poison.reason.encode()),
            (MESSAGE, str(poison)[:1000].encode()),
            (SOURCE, f"{topic}/{partition}/{records.offsets[row]}".encode()),
            (ATTEMPT, str(attempt).encode()),
        ),
        reason=poison.reason,
    )


def attempts(headers: Iterable[Header]) -> int:
    """Return how often a record with these headers has failed."""
    return max((_number(value) for name, value in headers if name == ATTEMPT), default=0)


def _cut(data: bytes | None, limit: int, size: str, digest: str) -> tuple[bytes | None, tuple[Header, ...]]:
    """Return at most `limit` bytes, and what the headers say of all of them if some are missing."""
    if data is None or len(data) <= limit:
        return data, ()
    return data[:limit], ((size, str(len(data)).encode()), (digest, hashlib.sha256(data).hexdigest().encode()))


def _bounded(headers: tuple[Header, ...]) -> tuple[tuple[Header, ...], tuple[Header, ...]]:
    """Return the first headers, of at most MAX_HEADERS bytes together, and how many there were more."""
    sizes = accumulate(len(name.encode()) + len(value or b"") + HEADER_OVERHEAD for name, value in headers)
    kept = sum(size <= MAX_HEADERS for size in sizes)
    if kept == len(headers):
        return headers, ()
    return headers[:kept], ((HEADERS_LEFT_OUT, str(len(headers) - kept).encode()),)


def _number(value: bytes | None) -> int:
    """Return what an attempt header says; anyone may have written it, so what is no number is 0."""
    return int(value) if value and value.isdigit() and len(value) < 10 else 0
