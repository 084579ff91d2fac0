"""An old and a new version of an event on one topic: each reader gets what it knows, and nobody waits for anybody."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import encode
from schemas.events import Amount, Example, Label, Score, Transaction
from streams.agents.intake import EventReader
from streams.features.spec import FeatureSet
from streams.runtime.records import Records
from streams.usecases import FRAUD
from tests.unit.streams.rows import same

NOW = 1_700_000_000_000


class NewTransaction(Transaction, frozen=True, gc=False):
    """What Transaction may become: a field more, with a default, that features look at."""

    tip: Amount = 0.0


NEW_FEATURES = FeatureSet(("amount", "tip"), FRAUD.features.stages, FRAUD.features.derived)
OLD_READER = EventReader(FRAUD)
NEW_READER = EventReader(replace(FRAUD, event=NewTransaction, features=NEW_FEATURES))


def event(number: int, **changes: Any) -> dict[str, Any]:
    fields = {"event_id": f"e{number}", "customer_id": "c", "terminal_id": "t", "amount": number / 4}
    return fields | {"event_time": NOW + number} | changes


def batch(events: list[dict[str, Any]]) -> Records:
    count = len(events)
    return Records.of([b"c"] * count, list(map(encode, events)), range(count), [NOW] * count)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_both_readers_read_both_versions(tips: list[float | None]) -> None:
    """In any mixture the old reader overlooks what is new, the new one has the default for what is not there."""
    mixed = batch([event(i, **({} if tip is None else {"tip": tip})) for i, tip in enumerate(tips)])
    seen, dead = OLD_READER.read(mixed, 0, 2 * NOW)
    assert dead == []
    assert same(seen, OLD_READER.read(batch([event(i) for i in range(len(tips))]), 0, 2 * NOW)[0])
    seen, dead = NEW_READER.read(mixed, 0, 2 * NOW)
    assert dead == []
    assert seen.numbers[:, 1].tolist() == [tip or 0.0 for tip in tips]


def test_a_version_that_changes_a_type_is_set_aside_alone() -> None:
    """That is no new version but poison: the reason names the field, and the others are read."""
    events = [event(0), event(1, amount="0.25"), event(2, currency=978), event(3)]
    rows, dead = OLD_READER.read(batch(events), 0, 2 * NOW)
    assert rows.texts[0] == ["e0", "e3"]
    assert [(row, poison.reason, str(poison).rpartition(" ")[2]) for row, poison in dead] == [
        (1, "invalid", "`$.amount`"),
        (2, "invalid", "`$.currency`"),
    ]


FIRST: dict[type[msgspec.Struct], bytes] = {
    Transaction: b'{"event_id":"e","event_time":1,"customer_id":"c","terminal_id":"t","amount":1}',
    Label: b'{"event_id":"e","label_time":1,"label":1}',
    Score: b'{"event_id":"e","event_time":1,"entities":{"customer":"c"},"features":{"amount":1},"score":0.5,'
    b'"decision":"allow","model_id":"m","feature_set":"f","received_at":1,"scored_at":1}',
    Example: b'{"event_id":"e","event_time":1,"label_time":1,"label":1,"features":{"amount":1},"score":0.5,'
    b'"model_id":"m","feature_set":"f"}',
}
"""The first version of what stays in the topics for weeks."""


@pytest.mark.parametrize("type_", FIRST, ids=lambda type_: type_.__name__)
def test_the_first_version_is_read_for_ever(type_: type[msgspec.Struct]) -> None:
    """A field that came later has a default, none has changed its type, and an unknown one is overlooked."""
    first = msgspec.json.decode(FIRST[type_], type=type_)
    assert msgspec.json.decode(FIRST[type_][:-1] + b',"later":{"x":[1]}}', type=type_) == first
