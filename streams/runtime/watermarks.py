"""In-band watermarks: how a record is known to be one, and how it is read."""

import msgspec

from schemas.codec import Poison
from schemas.events import WATERMARK_HEADER, Watermark
from streams.runtime.records import Records

_decode = msgspec.json.Decoder(Watermark).decode


def is_watermark(records: Records, row: int) -> bool:
    """Say whether record `row` is a watermark, not an event or label."""
    return bool(records.header_count[row]) and any(name == WATERMARK_HEADER for name, _ in records.headers(row))


def read_watermark(value: bytes | None) -> Watermark:
    """Return the watermark; raise Poison where it is none."""
    try:
        return _decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Poison("invalid", f"watermark: {error}") from None
