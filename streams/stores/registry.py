"""The port of the model registry: every snapshot and every change of an alias, whatever store keeps them."""

from collections.abc import AsyncGenerator, Sequence
from enum import Enum
from hashlib import sha256
from typing import NamedTuple, Protocol

from schemas.events import AliasChange, ModelSnapshot


class Keep(Enum):
    """How long the bytes of an announcement are kept, in seconds: the longest is as long as examples are."""

    AN_HOUR = 3_600
    TWO_DAYS = 2 * 86_400
    LONG = 90 * 86_400


class Registered(NamedTuple):
    """What the registry says of a snapshot; its bytes are in the record `announcement`, which may be gone after
    `kept_until`. Times in epoch ms.
    """

    created_at: int
    model_id: str
    recipe: str
    feature_set: str
    parent: str | None
    examples_learnt: int
    example_offsets: dict[int, int]
    metrics: dict[str, float]
    state_bytes: int
    announcement: str
    kept_until: int


class Change(NamedTuple):
    """A change of an alias: to a recipe's newest snapshot, or to `model_id` for good; by whom, when and why.

    `changed_at` is when Kafka had it and scorers went by it, `offset` its place on the topic; `created_at` is when it
    was decided, in stream time if by the learner, which may tell it again after a crash.
    """

    changed_at: int
    offset: int
    alias: str
    recipe: str
    model_id: str | None
    by: str
    reason: str
    created_at: int

    def tells(self, change: AliasChange) -> bool:
        """Say whether this is `change`, told at whatever time."""
        return self == changed(change, self.changed_at, self.offset)


class ModelRegistry(Protocol):
    """The snapshots and alias changes of one use case.

    Writes are idempotent and commute; a snapshot that is listed has had its record kept before. What is written
    again is kept for the longest time that was said. A write that returns is kept. While the store is away, calls
    wait and try again.
    """

    async def write(self, record: bytes, models: Sequence[ModelSnapshot], keep: Keep) -> None:
        """Keep an announcement, as it was on its topic, and the snapshots in it."""

    async def write_change(self, change: Change) -> None:
        """Keep who changed an alias to what, when and why."""

    def newest(self, until: int) -> AsyncGenerator[Registered, None]:
        """Yield the snapshots made until then (epoch ms) and not long before, newest first."""

    async def named(self, model_id: str) -> list[Registered]:
        """Return the snapshots of that name, newest first: learning that begins anew gives names again."""

    async def record(self, announcement: str) -> bytes | None:
        """Return the announcement as it was on its topic, None where it is not kept any more."""

    def changes(self, until: int) -> AsyncGenerator[Change, None]:
        """Yield the changes that took effect until then (epoch ms) and not long before, newest first."""

    async def close(self) -> None:
        """Give the connections back."""


def announcement_name(record: bytes) -> str:
    """Return the name of an announcement, a function of its bytes: the same record is always the same row."""
    return sha256(record).hexdigest()[:32]


def registered(record: bytes, models: Sequence[ModelSnapshot], keep: Keep) -> list[Registered]:
    """Return what is said of the snapshots in an announcement."""
    name = announcement_name(record)
    return [
        Registered(
            created_at=model.created_at,
            model_id=model.model_id,
            recipe=model.recipe,
            feature_set=model.feature_set,
            parent=model.parent,
            examples_learnt=model.examples_learnt,
            example_offsets=model.example_offsets,
            metrics=model.metrics,
            state_bytes=len(model.state),
            announcement=name,
            kept_until=model.created_at + keep.value * 1000,
        )
        for model in models
    ]


def changed(change: AliasChange, changed_at: int, offset: int) -> Change:
    """Return what is said of a change that Kafka has had since then, at that offset."""
    pinned = change.model.model_id if change.model else None
    said = (change.alias, change.recipe, pinned, change.by, change.reason)
    return Change(changed_at, offset, *said, change.created_at)
