"""Lists of entities, as they decide."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.decisions.lists import EntityLists
from streams.decisions.policy import ALLOW, BLOCK
from streams.decisions.verdicts import NO_LISTS, UNLISTED
from streams.usecases import FRAUD

LISTED = FRAUD.verdicts.listed
ids = st.sampled_from(["a", "b", "c"])
changes = st.lists(st.tuples(st.sampled_from(FRAUD.entities), ids, st.sampled_from([ALLOW, BLOCK, None])), max_size=12)


@given(changes, st.lists(st.tuples(ids, ids), max_size=5))
def test_the_last_change_counts_and_blocking_wins(
    changed: list[tuple[str, str, str | None]], events: list[tuple[str, str]]
) -> None:
    """An entity is on the list it was put on last; of an event's entities a blocked one decides."""
    lists = EntityLists(FRAUD.verdicts, FRAUD.entities)
    last: dict[tuple[str, str], str | None] = {}
    for entity, id_, list_ in changed:
        lists.put(entity, id_, list_)
        last[entity, id_] = list_
    columns = [[event[i] for event in events] for i in range(2)]
    verdicts = lists.verdicts(columns)
    named = [
        max(
            LISTED.get((last.get((entity, id_)), entity), UNLISTED)
            for entity, id_ in zip(FRAUD.entities, event, strict=True)
        )
        for event in events
    ]
    assert len(lists) == sum(one is not None for one in last.values())
    assert verdicts.tolist() == (named if len(lists) else [])
    given_ = FRAUD.verdicts.give(
        np.zeros((len(events), len(FRAUD.features.names))), np.full(len(events), 0.5), listed=verdicts
    )
    lists_said = [
        last.get((entity, id_)) for event in events for entity, id_ in zip(FRAUD.entities, event, strict=True)
    ]
    for i in range(len(events)):
        mine = lists_said[2 * i : 2 * i + 2]
        expected = "decline" if BLOCK in mine else "approve"
        assert FRAUD.verdicts.decisions[given_.verdicts[i]] == expected


def test_nobody_listed_costs_nothing() -> None:
    """Without entries there is no array to make."""
    lists = EntityLists(FRAUD.verdicts, FRAUD.entities)
    assert lists.verdicts([["a"], ["b"]]) is NO_LISTS


@pytest.mark.parametrize(("entity", "list_"), [("device", BLOCK), ("customer", "grey")])
def test_other_entities_and_lists_are_refused(entity: str, list_: str) -> None:
    """What this use case cannot decide by is no entry."""
    lists = EntityLists(FRAUD.verdicts, FRAUD.entities)
    with pytest.raises(KeyError):
        lists.put(entity, "a", list_)
    assert len(lists) == 0
