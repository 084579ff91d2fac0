"""Dead letters keep what came and say why it is there."""

import hashlib
from dataclasses import replace

import pytest

from schemas.codec import Poison
from streams.runtime.dlq import (
    ATTEMPT,
    ERROR,
    HEADERS_LEFT_OUT,
    KEY_BYTES,
    KEY_SHA256,
    MAX_HEADERS,
    MAX_KEY,
    MAX_VALUE,
    MESSAGE,
    SOURCE,
    VALUE_BYTES,
    VALUE_SHA256,
    dead_letter,
)
from streams.runtime.records import Header, Records
from streams.runtime.sender import _with_headers
from streams.usecases import FRAUD

POISON = Poison("invalid", "amount: not a number")


def letter(headers: list[Header], key: bytes | None = b"k", value: bytes | None = b"v", poison: Poison = POISON):
    """The dead letter of the middle one of three records."""
    records = Records.of(
        [b"before", key, b"after"], [b"x", value, b"y"], [10, 12, 15], [0] * 3, [[("a", b"0")], headers, []]
    )
    return dead_letter(records, 1, "fraud.transactions", 3, poison)


def test_a_dead_letter_keeps_everything_and_says_why() -> None:
    """Key, value and headers as they came, then reason, message, source and attempt."""
    one = letter([("trace", b"\x00\xff"), ("trace", b"again"), ("none", None)], b"\xffkey", b"{\x00")
    assert (one.key, one.value, one.reason) == (b"\xffkey", b"{\x00", "invalid")
    assert one.headers == (
        ("trace", b"\x00\xff"),
        ("trace", b"again"),
        ("none", None),
        (ERROR, b"invalid"),
        (MESSAGE, b"amount: not a number"),
        (SOURCE, b"fraud.transactions/3/12"),
        (ATTEMPT, b"1"),
    )


@pytest.mark.parametrize(("key", "value"), [(None, None), (None, b"v"), (b"k", None), (b"", b"")])
def test_null_and_empty_are_kept_apart(key: bytes | None, value: bytes | None) -> None:
    """A null stays null, an empty string stays empty."""
    assert (letter([], key, value).key, letter([], key, value).value) == (key, value)


def test_a_letter_sent_again_counts_its_attempts() -> None:
    """A dead letter that was replayed and failed again has the new reason once, and one attempt more."""
    first = letter([("trace", b"1")], poison=Poison("null", "the value is null"))
    second = letter(list(first.headers))
    assert second.headers == (
        ("trace", b"1"),
        (ERROR, b"invalid"),
        (MESSAGE, b"amount: not a number"),
        (SOURCE, b"fraud.transactions/3/12"),
        (ATTEMPT, b"2"),
    )


def test_a_header_name_that_is_not_utf_8_is_buried_too() -> None:
    """Kafka does not look at names: what cannot be read in one is replaced, the rest is kept."""
    records = Records.of([b"k"], [b"v"], [7], [0], [[("n?me", b"\xff"), ("trace", b"1")]])
    buffer = records.buffer.copy()
    buffer[buffer.tobytes().index(b"n?me") + 1] = 0xFF
    one = dead_letter(replace(records, buffer=buffer), 0, "fraud.transactions", 3, POISON)
    assert one.headers[:2] == (("n\N{REPLACEMENT CHARACTER}me", b"\xff"), ("trace", b"1"))
    assert (one.key, one.value, one.headers[2]) == (b"k", b"v", (ERROR, b"invalid"))


@pytest.mark.parametrize("value", [b"abc", b"", None, b"-3", b"9" * 5000, b"\xff", "٣".encode()])
def test_an_attempt_that_is_no_number_counts_as_none(value: bytes | None) -> None:
    """Anyone can write the header: nonsense in it does not stop the burial."""
    assert letter([(ATTEMPT, value)]).headers[-1] == (ATTEMPT, b"1")


def test_a_long_message_is_cut() -> None:
    """The message never outgrows the record."""
    message = dict(letter([], poison=Poison("invalid", "é" * 5000)).headers)[MESSAGE]
    assert message == ("é" * 1000).encode()


def test_what_no_topic_would_take_is_cut_and_says_so() -> None:
    """Of an inflated giant the first part is kept, with size and digest, and its letter fits the topic."""
    key, value = b"k" * (MAX_KEY + 1), b"v" * (9 << 20)
    headers: list[Header] = [("h", b"x" * 1000)] * 5000
    one = letter(headers, key, value)
    assert (one.key, one.value) == (key[:MAX_KEY], value[:MAX_VALUE])
    said = dict(one.headers)
    assert (said[KEY_BYTES], said[KEY_SHA256]) == (b"%d" % len(key), hashlib.sha256(key).hexdigest().encode())
    assert (said[VALUE_BYTES], said[VALUE_SHA256]) == (b"%d" % len(value), hashlib.sha256(value).hexdigest().encode())
    kept = [header for header in one.headers if header == headers[0]]
    assert len(kept) + int(said[HEADERS_LEFT_OUT] or 0) == 5000
    assert len(kept) > 0.9 * MAX_HEADERS / 1000
    (written,) = _with_headers([(one.key, one.value, one.headers)])
    assert len(written) < FRAUD.topics(1).dlq.max_message_bytes
    again = letter(list(one.headers), one.key, one.value)
    assert dict(again.headers)[VALUE_BYTES] == said[VALUE_BYTES]


def test_what_a_topic_takes_is_whole() -> None:
    """At the limit nothing is cut, and nothing is said of cutting."""
    one = letter([], b"k" * MAX_KEY, b"v" * MAX_VALUE)
    assert (len(one.key or b""), len(one.value or b"")) == (MAX_KEY, MAX_VALUE)
    assert [name for name, _ in one.headers] == [ERROR, MESSAGE, SOURCE, ATTEMPT]
