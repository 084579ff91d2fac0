"""The commands that change the champion: promote and rollback, effective once Kafka has the change."""

import argparse
from typing import Literal

from schemas.events import AliasChange, ModelSnapshot
from services.models import output
from services.models.access import Access, now, user
from services.models.choice import Refused
from streams.models.snapshot import snapshot_of

CHAMPION: Literal["champion"] = "champion"


async def promote(access: Access, options: argparse.Namespace) -> None:
    """Make a recipe or a snapshot the champion; raises Refused, SnapshotRefused."""
    key, recipes = access.settings.signing_key(), access.usecase.recipes
    if "@" in options.model:
        async with access.registry() as registry:
            snapshot = await access.choice(registry).named(options.model)
        await _change(access, options, snapshot.recipe, snapshot)
        return
    if options.model not in recipes:
        raise Refused(f"{access.usecase.name} has no recipe {options.model}: it has {', '.join(recipes)}")
    _, announcement = await access.log.newest(key)
    snapshot_of(announcement, options.model)  # raises where none has been announced yet
    await _change(access, options, options.model, None)


async def rollback(access: Access, options: argparse.Namespace) -> None:
    """Pin the snapshot that is named, or what was the champion before the last change; raises as `promote`."""
    async with access.registry() as registry:
        choice = access.choice(registry)
        if options.model is not None:
            snapshot = await choice.named(options.model)
        elif last := (await access.log.aliases()).get(CHAMPION):
            snapshot = await choice.before(last, now())
        else:
            raise Refused("the champion has never been changed: name the MODEL_ID to go back to (list shows them)")
    await _change(access, options, snapshot.recipe, snapshot)


async def _change(access: Access, options: argparse.Namespace, recipe: str, pinned: ModelSnapshot | None) -> None:
    change = AliasChange(CHAMPION, recipe, "operator", f"{user()}: {options.reason}", now(), pinned)
    await access.log.change(change)
    if options.json:
        output.print_json(
            {
                "alias": change.alias,
                "recipe": recipe,
                "model_id": pinned.model_id if pinned else None,
                "reason": change.reason,
                "created_at": change.created_at,
            }
        )
    else:
        print(output.told(change))
