"""The registry agent: what comes twice is kept once, and the first of each hour lasts, to go back to."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import TypeVar

from schemas.codec import encode
from schemas.events import AliasChange, ModelAnnouncement, ModelSnapshot
from streams.agents.registry import HOUR_MS, RegistryAgent
from streams.metrics import Metrics
from streams.runtime.batches import Batch
from streams.runtime.records import Records
from streams.stores.registry import Change
from streams.stores.registry_memory import MemoryRegistry

HOUR = 480_000 * HOUR_MS
FOREVER = 2**53
T = TypeVar("T")


def announcement(created_at: int) -> bytes:
    models = [
        ModelSnapshot(f"{recipe}@{created_at}", recipe, "00ff", {0: 9}, 7, created_at, None, {"auc": 0.9}, b"state")
        for recipe in ("ftrl", "trees")
    ]
    return encode(ModelAnnouncement(created_at, "00ff", {0: 9}, models, b"course", b"signature"))


def batch(*values: bytes | None) -> Batch:
    n = len(values)
    return Batch("fraud.models", 0, Records.of([b"fraud"] * n, values, range(5, 5 + n), [1] * n), 5 + n, generation=1)


async def every(items: AsyncGenerator[T, None]) -> list[T]:
    return [item async for item in items]


async def kept(agent: RegistryAgent, *values: bytes | None) -> None:
    """Let the agent keep some announcements, and its offset be theirs."""
    assert await every(agent.keep_models(batch(*values))) == [5 + len(values)]


def lasting(store: MemoryRegistry) -> Sequence[int]:
    """When the lasting snapshots were made, after the beginning of the hour."""
    rows = asyncio.run(every(store.newest(FOREVER)))
    return sorted({row.created_at - HOUR for row in rows if row.lasting})


def test_all_models_of_an_announcement_are_kept_with_its_record() -> None:
    """Each model is listed by itself and leads to the record as it was on the topic."""
    store, value = MemoryRegistry(), announcement(HOUR)
    asyncio.run(kept(RegistryAgent(store, Metrics("test")), value))
    rows = asyncio.run(every(store.newest(FOREVER)))
    assert [row.model_id for row in rows] == [f"trees@{HOUR}", f"ftrl@{HOUR}"]
    assert [asyncio.run(store.record(row.announcement)) for row in rows] == [value, value]


def test_the_first_of_each_hour_lasts() -> None:
    """Across batches, and across hours without any."""
    #  |0 . . 59.9|        |2h .
    store, times = MemoryRegistry(), [0, 2_000, HOUR_MS - 1, 2 * HOUR_MS + 4_000, 2 * HOUR_MS + 6_000]
    agent = RegistryAgent(store, Metrics("test"))
    for group in times[:2], times[2:]:
        asyncio.run(kept(agent, *(announcement(HOUR + time) for time in group)))
    assert lasting(store) == [0, 2 * HOUR_MS + 4_000]


def test_what_comes_again_after_a_crash_changes_nothing_that_lasts() -> None:
    """Another process begins anywhere in what was kept already: one more may last, none does no longer."""
    store, values = MemoryRegistry(), [announcement(HOUR + time) for time in (0, 2_000, 4_000)]
    asyncio.run(kept(RegistryAgent(store, Metrics("test")), *values))
    asyncio.run(kept(RegistryAgent(store, Metrics("test")), *values[1:]))
    assert lasting(store) == [0, 2_000]
    assert len(asyncio.run(every(store.newest(FOREVER)))) == 2 * len(values)


def test_what_is_no_announcement_is_passed_over_and_counted() -> None:
    """Damaged bytes are named and counted, a null is only passed over, the rest is kept."""
    store, metrics = MemoryRegistry(), Metrics("test")
    value = announcement(HOUR)
    asyncio.run(kept(RegistryAgent(store, metrics), value[:-9], None, b"\xff", b"{}", value))
    assert len(asyncio.run(every(store.newest(FOREVER)))) == 2
    assert metrics.registry.get_sample_value("headrace_models_refused_total") == 3


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
