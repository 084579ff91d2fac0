"""What a request says: its labels one by one, each sound or with the reason why not; pure."""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from schemas.codec import Decoder, Poison
from schemas.events import Label

JSON, LINES = "application/json", "application/x-ndjson"
MOST = 10_000
"""Labels in a request."""

_decode = Decoder(Label, "label_time")
_parts = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Item(NamedTuple):
    """What stands at `number` (from 0, of the array's items or of the lines) of a request."""

    number: int
    content: Label | Poison


def read(body: bytes, lines: bool, latest: int) -> list[Item]:
    """Return the labels of a body, one JSON object, an array of them, or one a line; none may be after `latest` (ms).

    Raises Poison where the whole body cannot be read, or has none or too many.

    >>> [item.content.reason for item in read(b'[{"event_id":"a","label_time":5,"label":2}]', False, 9)]
    ['invalid']
    """
    items = [Item(number, _label(part, latest)) for number, part in _split(body, lines)]
    if not items:
        raise Poison("empty", "there is no label in it")
    return items


def _split(body: bytes, lines: bool) -> Iterator[tuple[int, bytes]]:
    if lines:
        parts = body.split(b"\n")
    elif body.lstrip()[:1] == b"[":
        try:
            parts = [bytes(part) for part in _parts(body)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Poison("undecodable", str(error)) from None
    else:
        parts = [body]
    there = [(number, part) for number, part in enumerate(parts) if part.strip()]
    if len(there) > MOST:
        raise Poison("too_many", f"{len(there)} labels, more than {MOST}")
    yield from there


def _label(part: bytes, latest: int) -> Label | Poison:
    try:
        label = _decode(part, latest)
    except Poison as poison:
        return poison
    # Whoever says something does not assume it: only services.matured does.
    return Poison("invalid", "`assumed` is not to be said") if label.assumed else label
