"""What a record of the DLQ says, and what may be done with it; pure.

A replay leaves *receipts* in the DLQ, after the letters that it has sent: records whose value lists their offsets
(JSON). So the topic alone says what became of a letter, and one replay after another sends no letter twice.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from schemas.codec import encode
from schemas.topics import Topic
from streams.runtime.compression import UNREAD_BATCH, CorruptRecordsError
from streams.runtime.dlq import (
    ATTEMPT,
    ERROR,
    HEADERS_LEFT_OUT,
    KEY_BYTES,
    MAX_ATTEMPTS,
    MESSAGE,
    SOURCE,
    VALUE_BYTES,
    attempts,
)
from streams.runtime.records import Header, Records

REPLAYED = "headrace-replayed"
"""The header of a receipt."""

WAITING, DONE, PARKED, UNFIT = "waiting", "replayed", "parked", "unfit"
UNKNOWN = "unknown"

RECORD_OVERHEAD = 512  # bytes, more than a batch of one record and its sizes take

_OURS = {ERROR, MESSAGE, SOURCE}
_NOT_WHOLE = {
    VALUE_BYTES: "its value was cut",
    KEY_BYTES: "its key was cut",
    HEADERS_LEFT_OUT: "some of its headers were left out",
    UNREAD_BATCH: "it is a whole batch that cannot be inflated",
}

_decode_receipt = msgspec.json.Decoder(list[int]).decode


class Source(NamedTuple):
    """Where a dead letter was read."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True)
class Letter:
    """A dead letter; `offset` and `time` (epoch ms) are its own in the DLQ, `headers` are the original ones.

    `source` is None where the record does not say it: anyone may have written it.
    """

    offset: int
    time: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
    reason: str
    message: str
    source: Source | None
    attempt: int

    def size(self) -> int:
        """Return how many bytes the record takes in a topic, at most."""
        parts = [self.key, self.value, *(part for name, value in self.headers for part in (name.encode(), value))]
        return sum(len(part or b"") for part in parts) + 16 * len(self.headers) + RECORD_OVERHEAD

    def returning(self) -> tuple[Header, ...]:
        """Return the headers to send it back with: the original ones, and how often it has failed."""
        return (*self.headers, (ATTEMPT, str(self.attempt).encode()))


def read(records: Records, row: int) -> Letter | list[int]:
    """Return record `row` of a batch of the DLQ: a letter, or the offsets that a receipt lists.

    Whatever a record holds, it is one of the two.
    """
    try:
        headers = records.headers(row)
    except CorruptRecordsError:
        headers = ()
    ours = dict(headers)
    record = records.take(slice(row, row + 1))
    (key,), (value,) = record.keys(), record.values()
    if REPLAYED in ours and SOURCE not in ours:
        return _receipt(value)
    return Letter(
        offset=int(record.offsets[0]),
        time=int(record.timestamps[0]),
        key=key,
        value=value,
        headers=tuple(one for one in headers if one[0] not in {*_OURS, ATTEMPT}),
        reason=(ours.get(ERROR) or UNKNOWN.encode()).decode(errors="replace"),
        message=(ours.get(MESSAGE) or b"").decode(errors="replace"),
        source=_source(ours.get(SOURCE)),
        attempt=attempts(headers),
    )


def receipt(offsets: list[int]) -> tuple[bytes, tuple[Header, ...]]:
    """Return value and headers of the record that says which letters were sent back."""
    return encode(offsets), ((REPLAYED, b"1"),)


def standing(letter: Letter, replayed: Container[int], topics: Mapping[str, Topic]) -> tuple[str, str]:
    """Return where a letter stands, and why where it cannot be sent back to one of `topics`."""
    if letter.offset in replayed:
        return DONE, ""
    if why := _unfit(letter, topics):
        return UNFIT, why
    return (PARKED if letter.attempt >= MAX_ATTEMPTS else WAITING), ""


def _unfit(letter: Letter, topics: Mapping[str, Topic]) -> str:
    """Say what keeps a letter from being sent back as it came, nothing if nothing does."""
    if letter.source is None:
        return "it does not say where it is from"
    topic = topics.get(letter.source.topic)
    if topic is None:
        return f"{letter.source.topic} is no topic that takes records back"
    if letter.source.partition >= topic.partitions:
        return f"{topic.name} has {topic.partitions} partitions"
    if letter.size() > topic.max_message_bytes:
        return f"{topic.name} takes {topic.max_message_bytes} bytes, uncompressed"
    return next((why for name, _ in letter.headers if (why := _NOT_WHOLE.get(name))), "")


def _receipt(value: bytes | None) -> list[int]:
    try:
        return _decode_receipt(value or b"[]")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []


def _source(value: bytes | None) -> Source | None:
    topic, _, rest = (value or b"").decode(errors="replace").partition("/")
    partition, _, offset = rest.partition("/")
    numbers = all(part.isascii() and part.isdigit() and len(part) < 20 for part in (partition, offset))
    return Source(topic, int(partition), int(offset)) if topic and numbers else None
