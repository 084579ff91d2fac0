"""What the codec takes and what it refuses, value by value: a record either fits or is a `Poison`."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import MAX_VALUE_BYTES, Decoder, Poison, encode
from schemas.events import Label, Score, Transaction

NOW = 1_700_000_000_000
transaction = Decoder(Transaction, "event_time")
label = Decoder(Label, "label_time")
score = Decoder(Score, "event_time")

FIELDS = {"event_id": '"e"', "event_time": "5", "customer_id": '"c"', "terminal_id": '"t"', "amount": "1.5"}
LABEL = {"event_id": '"e"', "label_time": "5", "label": "1"}
SCORE = {
    "event_id": '"e"', "event_time": "5", "entities": '{"customer":"c"}', "features": '{"amount":1.5}',
    "score": "0.5", "decision": '"approve"', "model_id": '"m@1"', "feature_set": '"f"',
    "received_at": "6", "scored_at": "7",
}  # fmt: skip


def as_json(fields, without=(), **changed):
    """A JSON object of fields whose values are JSON already, so that what JSON cannot say can be tested."""
    members = [f'"{name}":{value}' for name, value in {**fields, **changed}.items() if name not in without]
    return ("{" + ",".join(members) + "}").encode("utf-8", "surrogatepass")


def refusal(decoder, value, latest=NOW):
    with pytest.raises(Poison) as caught:
        decoder(value, latest=latest)
    assert str(caught.value), "a poison says why"
    return caught.value


def test_takes_the_required_fields_alone():
    """What is optional may be absent, and is None."""
    expected = Transaction(event_id="e", event_time=5, customer_id="c", terminal_id="t", amount=1.5)
    assert transaction(as_json(FIELDS), latest=NOW) == expected
    assert expected.currency is None


@pytest.mark.parametrize("name", FIELDS)
def test_a_missing_field_is_named(name):
    """Each required field is required, and the message names it."""
    poison = refusal(transaction, as_json(FIELDS, without=[name]))
    assert poison.reason == "invalid"
    assert name in str(poison)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("amount", '"1.5"', "invalid"),
        ("amount", "true", "invalid"),
        ("amount", "null", "invalid"),
        ("amount", "[1.5]", "invalid"),
        ("amount", "NaN", "undecodable"),
        ("amount", "Infinity", "undecodable"),
        ("amount", "-Infinity", "undecodable"),
        ("amount", "1e999", "invalid"),
        ("amount", "-1e999", "invalid"),
        ("amount", "9" * 400, "invalid"),
        ("amount", "1.0000001e12", "invalid"),
        ("amount", "-1.0000001e12", "invalid"),
        ("amount", "01", "undecodable"),
        ("event_time", "-1", "invalid"),
        ("event_time", "5.5", "invalid"),
        ("event_time", "5.0", "invalid"),
        ("event_time", "true", "invalid"),
        ("event_time", '"2026-01-01T00:00:00Z"', "invalid"),
        ("event_time", "null", "invalid"),
        ("event_time", "9007199254740993", "invalid"),
        ("event_time", "9" * 400, "invalid"),
        ("event_id", "1", "invalid"),
        ("event_id", '""', "invalid"),
        ("event_id", "null", "invalid"),
        ("event_id", '"' + "e" * 129 + '"', "invalid"),
        ("customer_id", '""', "invalid"),
        ("customer_id", "{}", "invalid"),
        ("terminal_id", '""', "invalid"),
        ("currency", "978", "invalid"),
        ("device", '"' + "d" * 65 + '"', "invalid"),
    ],
)
def test_a_wrong_value_is_refused(field, value, reason):
    """Types are strict, numbers finite and bounded, ids neither empty nor endless."""
    poison = refusal(transaction, as_json(FIELDS, **{field: value}))
    assert poison.reason == reason
    assert reason == "undecodable" or field in str(poison)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount", "-12.5"),
        ("amount", "12"),
        ("amount", "1e12"),
        ("event_time", "0"),
        ("event_id", '"' + "e" * 128 + '"'),
        ("customer_id", r'"\u00e9\ud83d\ude00"'),
        ("currency", "null"),
        ("currency", '""'),
    ],
)
def test_an_unusual_value_is_taken(field, value):
    """Bounds are inclusive; refunds, whole amounts and any script are ordinary."""
    transaction(as_json(FIELDS, **{field: value}), latest=NOW)


@pytest.mark.parametrize("value", ["2", "-1", "true", "1.0", '"1"', "null"])
def test_a_label_is_zero_or_one(value):
    """Nothing else is a label, however much it looks like one."""
    assert refusal(label, as_json(LABEL, label=value)).reason == "invalid"


@pytest.mark.parametrize("value", ["NaN", "1e999", "null", '"1"', "true"])
def test_a_feature_is_a_finite_number(value):
    """A feature that no model may see is refused before one does."""
    refusal(score, as_json(SCORE, features='{"amount":' + value + "}"))


def test_a_nan_of_our_own_does_not_travel():
    """JSON has no NaN: what would be encoded as null is refused by the reader."""
    ours = msgspec.structs.replace(score(as_json(SCORE), latest=NOW), features={"amount": float("nan")})
    assert refusal(score, encode(ours)).reason == "invalid"


def test_the_future_begins_after_latest():
    """An event may be as late as `latest` itself, and not a millisecond later; the message names the field."""
    at = as_json(FIELDS, event_time=str(NOW))
    assert transaction(at, latest=NOW).event_time == NOW
    poison = refusal(transaction, at, latest=NOW - 1)
    assert poison.reason == "future"
    assert "event_time" in str(poison)
    assert refusal(label, as_json(LABEL, label_time=str(NOW)), latest=NOW - 1).reason == "future"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "null"),
        (b"", "undecodable"),
        (b" ", "undecodable"),
        (b"null", "invalid"),
        (b"[]", "invalid"),
        (b"5", "invalid"),
        (b"{", "undecodable"),
        (b"\x00\x01\xff", "undecodable"),
        (b"\xef\xbb\xbf" + as_json(FIELDS), "undecodable"),
        (as_json(FIELDS) + b"x", "undecodable"),
        (as_json(FIELDS).decode().encode("utf-16"), "undecodable"),
    ],
)
def test_what_is_no_json_object_is_refused(value, reason):
    """A null, an empty or a garbled record has its own reason."""
    assert refusal(transaction, value).reason == reason


@pytest.mark.parametrize(
    "customer", [r'"\ud800"', r'"\udc00x"', r'"\ud800\ud800"', '"\ud800"'], ids=["high", "low", "both", "raw"]
)
def test_lone_surrogates_are_refused(customer):
    """A half character could not be encoded as a key again, so it never gets in."""
    assert refusal(transaction, as_json(FIELDS, customer_id=customer)).reason == "undecodable"


def test_invalid_utf8_is_refused():
    """The bytes of a string are UTF-8."""
    assert refusal(transaction, as_json(FIELDS).replace(b'"c"', b'"\xff"')).reason == "undecodable"


@pytest.mark.parametrize("bomb", ["[", '{"a":', "[" * 9 + '{"a":'], ids=["arrays", "objects", "both"])
def test_a_nesting_bomb_is_poison(bomb):
    """Nesting too deep for the decoder's stack is refused like any garbage, in a field nobody reads too."""
    depth = 60_000 // len(bomb)
    assert refusal(transaction, as_json(FIELDS, extra=bomb * depth)).reason == "undecodable"
    patient = Decoder(Transaction, "event_time", max_bytes=1 << 20)
    assert refusal(patient, as_json(FIELDS, extra="[" * 100_000)).reason == "undecodable"
    assert refusal(patient, as_json(FIELDS, extra="[" * 100_000 + "]" * 100_000)).reason == "undecodable"


def test_a_value_too_large_is_refused_unread():
    """The limit is inclusive; beyond it not even the JSON is looked at."""
    padding = MAX_VALUE_BYTES - len(as_json(FIELDS, extra='""'))
    largest = as_json(FIELDS, extra='"' + "x" * padding + '"')
    assert len(largest) == MAX_VALUE_BYTES
    transaction(largest, latest=NOW)
    assert refusal(transaction, largest + b" ").reason == "too_large"
    assert refusal(transaction, b"\xff" * (2 << 20)).reason == "too_large"


def test_unknown_fields_are_ignored():
    """A producer may be ahead of its readers: a new field, of whatever type, changes nothing."""
    known = transaction(as_json(FIELDS), latest=NOW)
    assert transaction(as_json(FIELDS, loyalty='{"tier":[1,null,"gold"]}', event_id2="1e5"), latest=NOW) == known


def test_the_last_of_a_doubled_field_counts():
    """As in every JSON reader; and each of the values must fit."""
    doubled = as_json(FIELDS)[:-1] + b',"amount":2.5}'
    assert transaction(doubled, latest=NOW).amount == 2.5
    assert refusal(transaction, as_json(FIELDS)[:-1] + b',"amount":"2.5"}').reason == "invalid"


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=80).map(str.encode))
def test_no_bytes_do_anything_but_fit_or_poison(value):
    """Whatever arrives, the only exception is `Poison`."""
    with pytest.raises(Poison):
        transaction(value, latest=NOW)


@settings(deadline=None)
@given(st.integers(0, len(as_json(FIELDS)) - 1), st.integers(0, 255))
def test_a_damaged_byte_never_gets_past_as_another_type(at, byte):
    """A valid record with one byte changed is poison or still a well-typed record."""
    value = bytearray(as_json(FIELDS))
    value[at] = byte
    try:
        message = transaction(bytes(value), latest=NOW)
    except Poison:
        return
    assert isinstance(message.amount, float)
    assert isinstance(message.event_time, int)
    assert message.event_id.encode()
