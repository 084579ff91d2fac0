"""Intake: whatever is in a batch, the sound events are read as if they were alone, and the rest says why not."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import MAX_VALUE_BYTES, encode
from schemas.events import WATERMARK_HEADER, Transaction, Watermark
from streams.agents.intake import EventReader
from streams.runtime.dlq import ATTEMPT, ERROR, SOURCE, dead_letter
from streams.runtime.hop import END_OF_WATERMARKS, EVENT, FROM_EVENTS, WATERMARK, HopRows
from streams.runtime.records import Header, Records
from streams.usecases import FRAUD
from tests.unit.streams.rows import same

NOW = 1_700_000_000_000
READER = EventReader(FRAUD)
MARK: list[Header] = [(WATERMARK_HEADER, b"1")]

Message = tuple[bytes | None, bytes | None, list[Header]]
"""Key, value and headers of a record."""

drawn = settings(deadline=None, max_examples=100)


def transaction(**changes: Any) -> dict[str, Any]:
    return {"event_id": "e", "event_time": NOW, "customer_id": "c", "terminal_id": "t", "amount": 12.5} | changes


def sound(**changes: Any) -> Message:
    fields = transaction(**changes)
    return fields["customer_id"].encode(), encode(fields), []


def raw(value: bytes | None, key: bytes | None = b"c", headers: list[Header] | None = None) -> Message:
    return key, value, headers or []


def json(**changes: Any) -> bytes:
    return encode(transaction(**changes))


def batch(messages: list[Message], first: int = 40) -> Records:
    keys, values, headers = zip(*messages, strict=True) if messages else ((), (), ())
    n = len(messages)
    return Records.of(keys, values, range(first, first + n), range(NOW, NOW + n), headers)


def without(name: str) -> bytes:
    fields = transaction()
    del fields[name]
    return encode(fields)


TEXT = json().decode()

POISON: dict[str, tuple[Message, str]] = {
    "no JSON": (raw(b"\x00\x01\x02"), "undecodable"),
    "cut short": (raw(json()[:-1]), "undecodable"),
    "not UTF-8": (raw(json().replace(b'"e"', b'"\xff"')), "undecodable"),
    "a lone surrogate": (raw(json().replace(b'"e"', rb'"\ud800"')), "undecodable"),
    "a nesting bomb": (raw(b'{"x":' + b"[" * 60_000), "undecodable"),
    "empty": (raw(b""), "undecodable"),
    "a list": (raw(b"[]"), "invalid"),
    "no event id": (raw(without("event_id")), "invalid"),
    "no time": (raw(without("event_time")), "invalid"),
    "no customer": (raw(without("customer_id")), "invalid"),
    "no terminal": (raw(without("terminal_id")), "invalid"),
    "no amount": (raw(without("amount")), "invalid"),
    "an amount in quotes": (raw(json(amount="12.5")), "invalid"),
    "a null amount": (raw(json(amount=None)), "invalid"),
    "a number for an id": (raw(json(terminal_id=7)), "invalid"),
    "an empty id": (raw(json(customer_id=""), b""), "invalid"),
    "an endless id": (raw(json(event_id="x" * 129)), "invalid"),
    "a fractional time": (raw(json(event_time=NOW + 0.5)), "invalid"),
    "a time before the epoch": (raw(json(event_time=-1)), "invalid"),
    "NaN": (raw(TEXT.replace("12.5", "NaN").encode()), "undecodable"),
    "infinity": (raw(TEXT.replace("12.5", "Infinity").encode()), "undecodable"),
    "a float that overflows": (raw(TEXT.replace("12.5", "1e400").encode()), "invalid"),
    "an absurd amount": (raw(json(amount=1e13)), "invalid"),
    "the far future": (raw(json(event_time=NOW + 1)), "future"),
    "a null value": (raw(None), "null"),
    "a null key": (raw(json(), None), "wrong_key"),
    "another's key": (raw(json(), b"d"), "wrong_key"),
    "a key with a tail": (raw(json(), b"c\0"), "wrong_key"),
    "too large": (raw(json(device="x" * MAX_VALUE_BYTES)), "too_large"),
    "2 MB": (raw(b"x" * 2_000_000), "too_large"),
    "a watermark in words": (raw(b'{"watermark":"soon"}', None, MARK), "invalid"),
    "a null watermark record": (raw(None, None, MARK), "invalid"),
    "an event that says it is a watermark": (raw(json(), b"c", MARK), "invalid"),
}


def events(count: int) -> list[Message]:
    return [
        sound(event_id=f"é{i}", event_time=NOW - i, customer_id=f"ключ{i}", terminal_id=f"t{i}", amount=i / 8)
        for i in range(count)
    ]


@pytest.mark.parametrize(("poison", "reason"), POISON.values(), ids=POISON)
@pytest.mark.parametrize("at", [0, 1, 3])
def test_poison_is_set_aside_and_harms_no_other(poison: Message, reason: str, at: int) -> None:
    """First, between or last in a batch: the poison is named with its reason, the rows are those of the others."""
    good = events(3)
    records = batch([*good[:at], poison, *good[at:]])
    rows, dead = READER.read(records, 2, NOW)
    assert [(row, one.reason) for row, one in dead] == [(at, reason)]
    alone, none = READER.read(records.take(np.array([i for i in range(4) if i != at])), 2, NOW)
    assert none == []
    assert same(rows, alone)
    assert rows.texts[0] == ["é0", "é1", "é2"]


@pytest.mark.parametrize(("poison", "reason"), POISON.values(), ids=POISON)
def test_the_dead_letter_of_poison_has_its_bytes(poison: Message, reason: str) -> None:
    """Original key, value and headers, the reason and the place, whatever is wrong with the record."""
    key, value, headers = poison
    records = batch([sound(), (key, value, [("trace", b"\x01"), *headers])])
    ((row, why),) = READER.read(records, 2, NOW)[1]
    letter = dead_letter(records, row, "fraud.transactions", 2, why)
    assert (letter.key, letter.value, letter.reason) == (key, value, reason)
    assert letter.headers[: 1 + len(headers)] == (("trace", b"\x01"), *headers)
    ours = dict(letter.headers)
    assert (ours[ERROR], ours[SOURCE], ours[ATTEMPT]) == (reason.encode(), b"fraud.transactions/2/41", b"1")


def test_a_batch_of_poison_leaves_no_rows() -> None:
    """Nothing sound in it: no rows, every record named."""
    rows, dead = READER.read(batch([message for message, _ in POISON.values()]), 0, NOW)
    assert len(rows) == 0
    assert [one.reason for _, one in dead] == [reason for _, reason in POISON.values()]


def test_a_row_says_what_the_event_says() -> None:
    """Times, ids, values, source and arrival are in their columns."""
    rows, dead = READER.read(batch([sound(event_id="x", event_time=5, amount=-3.25), *events(1)]), 7, NOW)
    assert dead == []
    assert rows.kinds.tolist() == [EVENT, EVENT]
    assert rows.times.tolist() == [5, NOW]
    assert rows.texts == (["x", "é0"], ["c", "ключ0"], ["t", "t0"])
    assert rows.numbers.tolist() == [[-3.25, 0.0], [0.0, 0.0]]
    assert rows.source_topics.tolist() == [FROM_EVENTS] * 2
    assert rows.source_partitions.tolist() == [7, 7]
    assert rows.source_offsets.tolist() == rows.positions.tolist() == [40, 41]
    assert rows.received.tolist() == [NOW, NOW + 1]


def test_unknown_fields_and_all_optional_ones_are_fine() -> None:
    """What is not asked for is not looked at."""
    full = {"currency": "EUR", "merchant_category": "5411", "country": "DE", "device": "d", "channel": "web"}
    rows, dead = READER.read(batch([sound(**full), sound(**dict.fromkeys(full)), sound(new=[1, {}])]), 0, NOW)
    assert (len(rows), dead) == (3, [])


def test_watermarks_stand_in_their_place() -> None:
    """A watermark becomes a row where it stood, the end of the promise too, and the events around it stay."""
    first, second = events(2)
    marks = [raw(encode(Watermark(time)), None, MARK) for time in (0, NOW, None)]
    rows, dead = READER.read(batch([marks[0], first, marks[1], second, marks[2]]), 0, NOW)
    assert dead == []
    assert rows.kinds.tolist() == [WATERMARK, EVENT, WATERMARK, EVENT, WATERMARK]
    assert rows.times.tolist() == [0, NOW, NOW, NOW - 1, END_OF_WATERMARKS]
    assert rows.texts[0] == ["", "é0", "", "é1", ""]
    assert rows.source_offsets.tolist() == [40, 41, 42, 43, 44]


def test_a_batch_without_records_has_no_rows() -> None:
    """Nothing in, nothing out."""
    rows, dead = READER.read(batch([]), 0, NOW)
    assert (len(rows), dead) == (0, [])


@st.composite
def messages(draw: st.DrawFn) -> Message:
    texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)
    return sound(
        event_id=draw(texts),
        event_time=draw(st.integers(0, NOW)),
        customer_id=draw(texts),
        terminal_id=draw(texts),
        amount=draw(st.floats(-1e12, 1e12) | st.integers(-(10**12), 10**12)),
    )


@drawn
@given(st.lists(messages(), max_size=6))
def test_the_careful_way_reads_what_the_fast_way_reads(good: list[Message]) -> None:
    """Read at once or one by one (as some poison at the end forces): the same rows, bit for bit."""
    fast, none = READER.read(batch(good), 1, NOW)
    careful, dead = READER.read(batch([*good, raw(b"{")]), 1, NOW)
    assert none == []
    assert [row for row, _ in dead] == [len(good)]
    assert same(fast, careful)


@drawn
@given(st.lists(messages(), max_size=4), st.lists(st.sampled_from(sorted(POISON)), max_size=4), st.randoms())
def test_any_mixture_is_sorted_out(good: list[Message], bad: list[str], random: Any) -> None:
    """Events and poison in any mixture: the rows are the events', in order, and every poison has its reason."""
    mixed = [(message, None) for message in good] + [POISON[name] for name in bad]
    random.shuffle(mixed)
    rows, dead = READER.read(batch([message for message, _ in mixed]), 0, NOW)
    assert [(row, one.reason) for row, one in dead] == [(row, why) for row, (_, why) in enumerate(mixed) if why]
    assert rows.source_offsets.tolist() == [40 + row for row, (_, why) in enumerate(mixed) if not why]
    decoded = [msgspec.json.decode(value or b"", type=Transaction) for (_, value, _), why in mixed if not why]
    assert _events(rows) == [(one.event_id, one.event_time, one.customer_id, one.amount) for one in decoded]


def _events(rows: HopRows) -> list[tuple[Any, ...]]:
    return list(zip(rows.texts[0], rows.times.tolist(), rows.texts[1], rows.numbers[:, 0].tolist(), strict=True))
