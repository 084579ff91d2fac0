"""Which snapshot is meant: found in the registry, taken out of its announcement, and verified before it is used."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from schemas.events import AliasChange, ModelAnnouncement, ModelSnapshot
from streams.models.snapshot import ForeignSnapshot, SnapshotRefused, unseal
from streams.stores.registry import ModelRegistry, Registered
from streams.usecases import UseCase

CLOCKS_MS = 3_600_000  # how far ahead of ours the clock of a learner or of Kafka may be

Found = tuple[ModelAnnouncement, Registered]

_decode = msgspec.json.Decoder(ModelAnnouncement).decode


class Refused(Exception):
    """What was asked for cannot be done; the message says why, and nothing has changed."""


class Choice:
    """The snapshots of a use case that may be used: signed with `key`, of its feature set, and loadable."""

    def __init__(self, registry: ModelRegistry, usecase: UseCase, key: bytes) -> None:
        self._registry, self._usecase, self._key = registry, usecase, key

    async def named(self, model_id: str) -> ModelSnapshot:
        """Return the newest snapshot of that name that is of our features; raises Refused, SnapshotRefused."""
        return (await self.announced(model_id))[1]

    async def announced(self, model_id: str) -> tuple[ModelAnnouncement, ModelSnapshot]:
        """Return the same beside the announcement that it was in, which is not verified."""
        rows = await rows_named(self._registry, model_id)
        ours = [row for row in rows if row.feature_set == self._usecase.features.fingerprint]
        if not ours:
            raise ForeignSnapshot(
                f"snapshot {model_id}: made for feature set {rows[0].feature_set}, "
                f"not {self._usecase.features.fingerprint}"
            )
        for row in ours:
            announcement = await announcement_of(self._registry, row)
            if announcement is not None:
                return announcement, self._sound(announcement, row)
        raise Refused(f"{model_id}: its announcement is not kept any more (list --kept shows those that are)")

    async def resumable(self, model_id: str) -> ModelAnnouncement:
        """Return the newest announcement that has learnt no more than that snapshot and that a learner goes on from;
        it is not verified. Raises as `announced` does."""
        announcement, snapshot = await self.announced(model_id)
        if announcement.course:
            return announcement
        async with aclosing(self._kept(snapshot.recipe, snapshot.created_at, snapshot.created_at)) as kept:
            async for before, row in kept:
                if before.course and row.examples_learnt <= snapshot.examples_learnt:
                    return before
        raise Refused(f"{model_id}: was announced to scorers only, and nothing is kept from before it to go on from")

    async def before(self, change: AliasChange, now: int) -> ModelSnapshot:
        """Return what the alias of `change`, its last by `now`, was right before; raises Refused, SnapshotRefused."""
        async with aclosing(self._registry.changes(now + CLOCKS_MS)) as changes:
            rows = [row async for row in changes if row.alias == change.alias]
        # It may have been told more than once, with another in between that did not count.
        last = max((at for at, row in enumerate(rows) if row.tells(change)), default=None)
        if last is None:
            raise Refused("the registry has not met the last change yet (does a history process run?): name a MODEL_ID")
        until, previous = rows[last].changed_at, rows[last + 1 : last + 2]
        if previous and previous[0].model_id is not None:
            return await self.named(previous[0].model_id)
        recipe = previous[0].recipe if previous else self._usecase.recipes[0]
        async with aclosing(self._kept(recipe, until, now)) as kept:
            async for announcement, row in kept:
                return self._sound(announcement, row)
        raise Refused(f"the registry keeps no {recipe} from before the last change: name a MODEL_ID")

    async def _kept(
        self, recipe: str, until: int, now: int
    ) -> AsyncGenerator[tuple[ModelAnnouncement, Registered], None]:
        """Yield the snapshots of a recipe made until then whose bytes are still there, newest first."""
        async with aclosing(self._registry.newest(until)) as rows:
            async for row in rows:
                ours = row.recipe == recipe and row.feature_set == self._usecase.features.fingerprint
                if ours and row.kept_until > now:
                    announcement = await announcement_of(self._registry, row)
                    if announcement is not None:
                        yield announcement, row

    def _sound(self, announcement: ModelAnnouncement, row: Registered) -> ModelSnapshot:
        snapshot = snapshot_named(announcement, row.model_id)
        features, recipes = self._usecase.features, self._usecase.recipes
        if snapshot.recipe not in recipes:
            raise ForeignSnapshot(f"snapshot {row.model_id}: its recipe is not among {', '.join(recipes)}")
        unseal(snapshot, self._key, features.fingerprint, features.names)
        return snapshot


async def rows_named(registry: ModelRegistry, model_id: str) -> list[Registered]:
    """Return the snapshots of that name, newest first; raises Refused where there is none."""
    rows = await registry.named(model_id)
    if not rows:
        raise Refused(f"the registry has no model {model_id}")
    return rows


async def announcement_of(registry: ModelRegistry, row: Registered) -> ModelAnnouncement | None:
    """Return the announcement a snapshot was in, None where it is not kept any more; raises SnapshotRefused."""
    record = await registry.record(row.announcement)
    try:
        return None if record is None else _decode(record)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SnapshotRefused(f"snapshot {row.model_id}: the registry holds no announcement of it: {error}") from None


def snapshot_named(announcement: ModelAnnouncement, model_id: str) -> ModelSnapshot:
    """Return a snapshot in an announcement by its name; raises SnapshotRefused."""
    for snapshot in announcement.models:
        if snapshot.model_id == model_id:
            return snapshot
    raise SnapshotRefused(f"snapshot {model_id}: is not in the announcement that the registry names")
