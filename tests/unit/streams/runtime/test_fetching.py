"""A fetch that is cancelled, as aiokafka does it: the canceller awaits it, and wants an answer."""

import asyncio
from typing import Any

import pytest

from streams.runtime import fetching
from streams.runtime.fetching import THIN_BYTES, RawFetcher


@pytest.mark.parametrize("taken", [0, THIN_BYTES])
def test_a_cancelled_fetch_ends_quietly(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    """Whether it lingers or waits for a broker that is away: its canceller does not fail."""

    async def waits_for_a_broker(*_: Any) -> bool:
        await asyncio.Event().wait()
        raise AssertionError("the event never comes")

    async def scenario() -> bool:
        fetcher: Any = RawFetcher.__new__(RawFetcher)
        fetcher.linger, fetcher._bytes_taken = 60.0, taken
        fetch = asyncio.create_task(fetcher._proc_fetch_request(None, 1, None))
        await asyncio.sleep(0)
        fetch.cancel()
        woke: bool = await fetch
        return woke

    monkeypatch.setattr(fetching, "_proc_raw_fetch_request", waits_for_a_broker)
    assert asyncio.run(scenario()) is False
