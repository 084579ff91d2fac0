"""The model registry in memory: the reference that every other store must equal."""

from collections.abc import AsyncGenerator, Sequence

from schemas.events import ModelSnapshot
from streams.stores.registry import Change, Keep, Registered, announcement_name, registered


class MemoryRegistry:
    """A ModelRegistry in dictionaries, without a time to live."""

    def __init__(self) -> None:
        self._models: dict[tuple[int, str], Registered] = {}
        self._records: dict[str, bytes] = {}
        self._changes: set[Change] = set()

    async def write(self, record: bytes, models: Sequence[ModelSnapshot], keep: Keep) -> None:
        self._records[announcement_name(record)] = record
        for row in registered(record, models, keep):
            place = row.created_at, row.model_id
            self._models[place] = max(row, self._models.get(place, row), key=lambda one: one.kept_until)

    async def write_change(self, change: Change) -> None:
        self._changes.add(change)

    async def newest(self, until: int) -> AsyncGenerator[Registered, None]:
        for _, row in sorted(self._models.items(), reverse=True):
            if row.created_at <= until:
                yield row

    async def named(self, model_id: str) -> list[Registered]:
        return [row for _, row in sorted(self._models.items(), reverse=True) if row.model_id == model_id]

    async def record(self, announcement: str) -> bytes | None:
        return self._records.get(announcement)

    async def changes(self, until: int) -> AsyncGenerator[Change, None]:
        for row in sorted(self._changes, key=lambda row: row[:2], reverse=True):
            if row.changed_at <= until:
                yield row

    async def close(self) -> None:
        return
