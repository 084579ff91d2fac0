"""The public messages: every one round-trips, is immutable, and has the shape that is on the wire."""

import inspect

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import events
from schemas.codec import encode

ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=128)
texts = st.none() | st.text(st.characters(codec="utf-8"), max_size=64)
millis = st.integers(0, 2**53)
amounts = st.floats(-1e12, 1e12)
finite = st.floats(allow_nan=False, allow_infinity=False)
features = st.dictionaries(ids, finite, max_size=5)

offsets = st.dictionaries(st.integers(0, 2**31 - 1), millis, max_size=3)
texts_of_any = st.text(max_size=20)
reasons = st.builds(events.Reason, feature=ids, effect=finite)
snapshots = st.builds(
    events.ModelSnapshot,
    model_id=ids, recipe=ids, feature_set=ids, example_offsets=offsets,
    examples_learnt=millis, created_at=millis, parent=st.none() | ids, metrics=features,
    state=st.binary(max_size=50), signature=st.binary(max_size=32),
)  # fmt: skip
MESSAGES = {
    events.Transaction: st.builds(
        events.Transaction,
        event_id=ids, event_time=millis, customer_id=ids, terminal_id=ids, amount=amounts,
        currency=texts, merchant_category=texts, country=texts, device=texts, channel=texts,
    ),
    events.Label: st.builds(
        events.Label, event_id=ids, label_time=millis, label=st.sampled_from([0, 1]), assumed=st.booleans()
    ),
    events.Reason: reasons,
    events.Score: st.builds(
        events.Score,
        event_id=ids, event_time=millis, entities=st.dictionaries(ids, ids, max_size=3), features=features,
        score=finite, decision=ids, model_id=ids, feature_set=ids, received_at=millis, scored_at=millis,
        raw_score=st.none() | finite, shadow=features, policy=ids, rule=ids, reasons=st.lists(reasons, max_size=3),
    ),
    events.Example: st.builds(
        events.Example,
        event_id=ids, event_time=millis, label_time=millis, label=st.sampled_from([0, 1]), features=features,
        score=finite, model_id=ids, feature_set=ids, weight=finite,
        label_partition=st.none() | st.integers(0, 2**15), label_offset=st.none() | st.integers(0, 2**62),
        corrects=st.sampled_from([None, 0, 1]), shadow=features,
    ),
    events.ModelAnnouncement: st.builds(
        events.ModelAnnouncement,
        created_at=millis, feature_set=ids, example_offsets=offsets,
        models=st.lists(snapshots, max_size=2), course=st.binary(max_size=50), signature=st.binary(max_size=32),
    ),
    events.ModelSnapshot: snapshots,
    events.AliasChange: st.builds(
        events.AliasChange,
        alias=st.just("champion"), recipe=ids, by=st.sampled_from(["learner", "operator"]),
        reason=texts_of_any, created_at=millis, model=st.none() | snapshots,
    ),
    events.Listing: st.builds(
        events.Listing,
        entity=ids.filter(lambda text: len(text) <= 64), id=ids, list=st.sampled_from(["block", "allow"]),
        reason=texts_of_any, created_at=millis,
    ),
    events.Watermark: st.builds(events.Watermark, watermark=st.none() | millis),
}  # fmt: skip


def public_messages():
    return {
        value
        for value in vars(events).values()
        if inspect.isclass(value) and issubclass(value, msgspec.Struct) and value.__module__ == events.__name__
    }


def test_every_public_message_is_tried_here():
    """A message added to the schemas is added to these tests."""
    assert public_messages() == set(MESSAGES)


@pytest.mark.parametrize("type_", MESSAGES, ids=lambda type_: type_.__name__)
@settings(deadline=None)
@given(data=st.data())
def test_a_message_is_the_same_after_the_wire(type_, data):
    """What is encoded decodes to an equal message, and encodes to the same bytes again."""
    message = data.draw(MESSAGES[type_])
    wire = encode(message)
    again = msgspec.json.decode(wire, type=type_)
    assert again == message
    assert encode(again) == wire


@pytest.mark.parametrize("type_", MESSAGES, ids=lambda type_: type_.__name__)
def test_a_message_is_frozen(type_):
    """A message is a fact; nobody changes it on its way."""
    assert type_.__struct_config__.frozen


@pytest.mark.parametrize("type_", MESSAGES, ids=lambda type_: type_.__name__)
def test_a_message_has_a_json_schema(type_):
    """Every type says itself in JSON Schema, from which the public contracts are generated."""
    schema = msgspec.json.schema(type_)
    assert schema["$defs"][type_.__name__]["type"] == "object"
