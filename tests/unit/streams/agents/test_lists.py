"""The lists as scorers follow them."""

import asyncio

import pytest

from schemas.codec import encode
from schemas.events import Listing
from streams.agents.lists import ListFeed
from streams.decisions.lists import EntityLists, key_of
from streams.metrics import Metrics
from streams.runtime.newest import Logged
from streams.usecases import FRAUD

TOPIC = FRAUD.topics(1).lists


def listing(entity: str, id_: str, list_: str) -> Logged:
    return Logged(3, encode(Listing(entity, id_, list_, "", 1)), key_of(entity, id_))  # type: ignore[arg-type]


def fed(*records: Logged) -> tuple[EntityLists, Metrics]:
    lists, metrics = EntityLists(FRAUD.verdicts, FRAUD.entities), Metrics("worker")
    feed = ListFeed("127.0.0.1:1", TOPIC, metrics, lists)

    async def take() -> None:
        for record in records:
            await feed._take(TOPIC.name, record)

    asyncio.run(take())
    return lists, metrics


def rule(lists: EntityLists, customer: str, terminal: str) -> str:
    verdicts = lists.verdicts([[customer], [terminal]])
    return FRAUD.verdicts.rules[verdicts[0]] if len(verdicts) and verdicts[0] >= 0 else ""


def test_entries_come_change_and_go() -> None:
    """An entity is on the list it was put on last, until the null that ends it; an id may hold a colon."""
    block, allow = listing("customer", "a:1", "block"), listing("customer", "a:1", "allow")
    gone = Logged(5, b"", key_of("customer", "a:1"))
    assert rule(fed(block)[0], "a:1", "t") == "block customer"
    assert rule(fed(block, allow)[0], "a:1", "t") == "allow customer"
    lists, metrics = fed(block, listing("terminal", "t", "allow"), gone)
    assert (rule(lists, "a:1", "x"), rule(lists, "a:1", "t")) == ("", "allow terminal")
    assert metrics.registry.get_sample_value("headrace_listed_entities") == 1


@pytest.mark.parametrize(
    "record",
    [
        listing("device", "d", "block"),
        Logged(3, b"{", key_of("customer", "c")),
        Logged(3, listing("customer", "c", "block").value, key_of("customer", "d")),
        Logged(3, listing("customer", "c", "block").value, b""),
        Logged(3, b"", b"no colon"),
        Logged(3, listing("customer", "c", "block").value, b"\xff:\xff"),
        Logged(3, b"", key_of("device", "d")),
    ],
    ids=["entity", "not JSON", "another's key", "no key", "no entry", "not UTF-8", "end of an unknown entity"],
)
def test_what_is_no_entry_changes_nothing(record: Logged, caplog: pytest.LogCaptureFixture) -> None:
    """It is counted and told by its offset; no entity is named in the log."""
    lists, metrics = fed(listing("customer", "known", "allow"), record)
    assert len(lists) == 1
    assert metrics.registry.get_sample_value("headrace_listings_refused_total") == 1
    (line,) = [one.message for one in caplog.records]
    assert line.startswith(f"{TOPIC.name}/0 at offset 3: refused")
    assert not {"known", "'c'", "'d'"} & set(line.split())
