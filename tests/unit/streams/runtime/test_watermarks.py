"""In-band watermarks: known by their header, read strictly."""

import pytest

from schemas.codec import Poison, encode
from schemas.events import WATERMARK_HEADER, Watermark
from streams.runtime.records import Header, Records
from streams.runtime.watermarks import is_watermark, read_watermark


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], False),
        ([("trace", b"1")], False),
        ([(WATERMARK_HEADER, b"1")], True),
        ([("trace", b"1"), (WATERMARK_HEADER, None)], True),
        ([(WATERMARK_HEADER + "s", b"1")], False),
    ],
)
def test_a_watermark_is_known_by_its_header(headers: list[Header], expected: bool) -> None:
    """The header alone decides, wherever it stands among others."""
    records = Records.of([None] * 2, [b"{}"] * 2, [0, 1], [0, 0], [[("a", b"b")], headers])
    assert is_watermark(records, 1) is expected


@pytest.mark.parametrize("time", [0, 1_700_000_000_000, None])
def test_a_watermark_is_read(time: int | None) -> None:
    """What a producer encodes is what a stage reads; null ends the promise."""
    assert read_watermark(encode(Watermark(time))) == Watermark(time)


@pytest.mark.parametrize(
    "value",
    [
        None, b"", b"{}", b"null", b"12", b"\xff", b'{"watermark":"12"}', b'{"watermark":-1}', b'{"watermark":1.5}',
        b'{"watermark":NaN}', b'{"watermark":1e300}', b'{"watermark":1,"x":' + b"[" * 60_000,
    ],
)  # fmt: skip
def test_a_bad_watermark_is_poison(value: bytes | None) -> None:
    """Anything but a time or null is refused with its reason, a nesting bomb too."""
    with pytest.raises(Poison, match="watermark") as caught:
        read_watermark(value)
    assert caught.value.reason == "invalid"
