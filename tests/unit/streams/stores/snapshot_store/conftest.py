"""Snapshots elsewhere: exact at every moment, and enough to go on from when Redis and Kafka have lost the beginning."""

import pytest

from streams.stores import snapshot_store


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_store, "PAUSE", 0)
    monkeypatch.setattr(snapshot_store, "PAGE", 2)
