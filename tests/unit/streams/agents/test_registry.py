"""The registry agent: what comes twice is kept once, and some for longer, to go back to."""

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

import msgspec
import pytest

from schemas.codec import encode
from schemas.events import AliasChange, ModelAnnouncement, ModelSnapshot
from streams.agents.registry import HOUR_MS, RegistryAgent
from streams.metrics import Metrics
from streams.runtime.batches import Batch
from streams.runtime.records import Records
from streams.stores.registry import Change, Keep
from streams.stores.registry_memory import MemoryRegistry

HOUR = 480_000 * HOUR_MS
FOREVER = 2**53
T = TypeVar("T")


def announcement(created_at: int, course: bytes = b"course") -> bytes:
    models = [
        ModelSnapshot(f"{recipe}@{created_at}", recipe, "00ff", {0: 9}, 7, created_at, None, {"auc": 0.9}, b"state")
        for recipe in ("ftrl", "trees")
    ]
    return encode(ModelAnnouncement(created_at, "00ff", {0: 9}, models, course, b"signature"))


def batch(*values: bytes | None) -> Batch:
    n = len(values)
    return Batch("fraud.models", 0, Records.of([b"fraud"] * n, values, range(5, 5 + n), [1] * n), 5 + n, generation=1)


async def every(items: AsyncGenerator[T, None]) -> list[T]:
    return [item async for item in items]


async def kept(agent: RegistryAgent, *values: bytes | None) -> None:
    """Let the agent keep some announcements, and its offset be theirs."""
    assert await every(agent.keep_models(batch(*values))) == [5 + len(values)]


def keeps(store: MemoryRegistry) -> list[tuple[int, Keep]]:
    """When the snapshots were made, after the beginning of the hour, and how long they are kept, oldest first."""
    rows = asyncio.run(every(store.newest(FOREVER)))
    times = {row.created_at: Keep((row.kept_until - row.created_at) // 1000) for row in rows}
    return [(time - HOUR, keep) for time, keep in sorted(times.items())]


def test_all_models_of_an_announcement_are_kept_with_its_record() -> None:
    """Each model is listed by itself and leads to the record as it was on the topic."""
    store, value = MemoryRegistry(), announcement(HOUR)
    asyncio.run(kept(RegistryAgent(store, Metrics("test")), value))
    rows = asyncio.run(every(store.newest(FOREVER)))
    assert [row.model_id for row in rows] == [f"trees@{HOUR}", f"ftrl@{HOUR}"]
    assert [asyncio.run(store.record(row.announcement)) for row in rows] == [value, value]


def test_what_goes_out_again_leads_to_where_it_was_new() -> None:
    """A model that is announced a second time, beside newer ones, is listed with its own announcement."""
    first, then = msgspec.json.decode(announcement(HOUR), type=ModelAnnouncement), HOUR + 60_000
    mixed = msgspec.json.decode(announcement(then), type=ModelAnnouncement)
    mixed.models[0] = first.models[0]
    store, values = MemoryRegistry(), (encode(first), encode(mixed))
    asyncio.run(kept(RegistryAgent(store, Metrics("test")), *values))
    rows = asyncio.run(every(store.newest(FOREVER)))
    found = {row.model_id: asyncio.run(store.record(row.announcement)) for row in rows}
    assert found == {f"ftrl@{HOUR}": values[0], f"trees@{HOUR}": values[0], f"trees@{then}": values[1]}


def test_the_first_of_an_hour_and_of_a_minute_are_kept_longer() -> None:
    """Across batches, and across hours without any."""
    #  0h: 0 s  2 s  1 min  1 min 2 s  ...  2h: 4 s  6 s
    times = [0, 2_000, 60_000, 62_000, 2 * HOUR_MS + 4_000, 2 * HOUR_MS + 6_000]
    store = MemoryRegistry()
    agent = RegistryAgent(store, Metrics("test"))
    for group in times[:2], times[2:]:
        asyncio.run(kept(agent, *(announcement(HOUR + time) for time in group)))
    long, days, hour = Keep.LONG, Keep.TWO_DAYS, Keep.AN_HOUR
    assert keeps(store) == list(zip(times, [long, hour, days, hour, long, hour], strict=True))


def test_what_nothing_goes_on_from_is_not_kept_for_long() -> None:
    """What is for scorers only is kept for an hour, and is not the first of anything."""
    store = MemoryRegistry()
    values = [announcement(HOUR + time, b"" if time % 60_000 else b"course") for time in (2_000, 60_000, 62_000)]
    asyncio.run(kept(RegistryAgent(store, Metrics("test")), *values))
    assert [keep for _, keep in keeps(store)] == [Keep.AN_HOUR, Keep.LONG, Keep.AN_HOUR]


def test_what_comes_again_after_a_crash_is_kept_no_shorter() -> None:
    """Another process begins anywhere in what was kept already: its first is kept long, the rest as before."""
    store, values = MemoryRegistry(), [announcement(HOUR + time) for time in (0, 2_000, 4_000)]
    asyncio.run(kept(RegistryAgent(store, Metrics("test")), *values))
    asyncio.run(kept(RegistryAgent(store, Metrics("test")), *values[1:]))
    assert keeps(store) == [(0, Keep.LONG), (2_000, Keep.LONG), (4_000, Keep.AN_HOUR)]
    assert len(asyncio.run(every(store.newest(FOREVER)))) == 2 * len(values)


def test_what_is_no_announcement_is_passed_over_and_counted() -> None:
    """Damaged bytes are named and counted, a null is only passed over, the rest is kept."""
    store, metrics = MemoryRegistry(), Metrics("test")
    value = announcement(HOUR)
    asyncio.run(kept(RegistryAgent(store, metrics), value[:-9], None, b"\xff", b"{}", value))
    assert len(asyncio.run(every(store.newest(FOREVER)))) == 2
    assert metrics.registry.get_sample_value("headrace_models_refused_total") == 3


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (b'"examples_learnt":7', b'"examples_learnt":%d' % 2**63),
        (b'"example_offsets":{"0":9},"examples', b'"example_offsets":{"%d":9},"examples' % 2**31),
        (b'"recipe":"ftrl"', b'"recipe":"%b"' % (b"f" * 70_000)),
    ],
    ids=["a count", "a partition", "a name"],
)
def test_what_no_store_can_hold_is_passed_over_too(ours: bytes, theirs: bytes) -> None:
    """No store is asked to write it, for ever in vain."""
    store, metrics, value = MemoryRegistry(), Metrics("test"), announcement(HOUR)
    asyncio.run(kept(RegistryAgent(store, metrics), value.replace(ours, theirs)))
    assert value.count(ours) > 0
    assert asyncio.run(every(store.newest(FOREVER))) == []
    assert metrics.registry.get_sample_value("headrace_models_refused_total") == 1


def test_alias_changes_are_kept() -> None:
    """Who, when by Kafka, and why, with the pinned model's name."""
    store = MemoryRegistry()
    pinned = ModelSnapshot("ftrl@7", "ftrl", "00ff", {}, 7, 1, None, {}, b"")
    agent = RegistryAgent(store, Metrics("test"))
    change = AliasChange("champion", "ftrl", "operator", "it decays", 4, pinned)
    assert asyncio.run(every(agent.keep_changes(batch(encode(change), b"{}", None)))) == [8]
    (only,) = asyncio.run(every(store.changes(FOREVER)))
    assert only == Change(1, 5, "champion", "ftrl", "ftrl@7", "operator", "it decays", created_at=4)
    assert only.tells(change)
