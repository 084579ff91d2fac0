"""The commands that only look: list, show, diff, changes."""

import argparse
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from schemas.events import AliasChange
from services.models import output
from services.models.access import Access, first, now
from services.models.choice import CLOCKS_MS, Refused, announcement_of, rows_named, snapshot_named
from services.models.compare import Weights, compare, differences, weights
from streams.models.snapshot import SnapshotRefused, unseal, verify
from streams.settings import SettingsError
from streams.stores.registry import ModelRegistry, Registered

PARTS_SHOWN = 10

Marked = tuple[Registered, list[str]]


async def list_models(access: Access, options: argparse.Namespace) -> None:
    """Print the newest snapshots with their marks."""
    usecase = access.usecase
    marks = Marks(await access.log.aliases(), usecase.recipes[0], usecase.features.fingerprint)

    async def wanted(found: AsyncGenerator[Registered, None]) -> AsyncGenerator[Marked, None]:
        async with aclosing(found):
            async for row in found:
                said = marks.of(row)  # also of those that are left out: marks go to the newest
                chosen = options.recipe in (None, row.recipe) and (row.kept_until > now() or not options.kept)
                if chosen and (options.before is None or row.created_at < options.before):
                    yield row, said

    async with access.registry() as registry:
        rows = await first(wanted(registry.newest(now() + CLOCKS_MS)), options.limit)
    if options.json:
        output.print_json(*(row._asdict() | {"marks": said} for row, said in rows))
    else:
        print("\n".join(output.table(rows)) if rows else "the registry has no such model")


async def show(access: Access, options: argparse.Namespace) -> None:
    """Print all that is known of a snapshot; raises Refused."""
    async with access.registry() as registry:
        row, *others = await rows_named(registry, options.model)
        facts = row._asdict() | {"usable": await _usable(access, registry, row)}
    facts["others_of_this_name"] = len(others)
    if options.json:
        output.print_json(facts)
    else:
        print("\n".join(output.page(facts)))


async def diff(access: Access, options: argparse.Namespace) -> None:
    """Print what two snapshots differ in; raises Refused."""
    moved, why = None, "they are not of one recipe, or have no weights"
    async with access.registry() as registry:
        a, b = [(await rows_named(registry, name))[0] for name in (options.a, options.b)]
        try:
            of_a, of_b = await _weights(access, registry, a), await _weights(access, registry, b)
            moved = compare(of_a, of_b, PARTS_SHOWN)
        except (SnapshotRefused, SettingsError, Refused) as error:
            why = str(error)
    rows = differences(a, b)
    if options.json:
        said = {row.name: {"a": row.a, "b": row.b, "change": row.change} for row in rows}
        output.print_json({"a": options.a, "b": options.b, "said": said, "weights": moved and moved._asdict()})
    else:
        print("\n".join(output.compared(options.a, options.b, rows, moved, why)))


async def changes(access: Access, options: argparse.Namespace) -> None:
    """Print who changed an alias, when and why."""
    async with access.registry() as registry:
        rows = await first(registry.changes(now() + CLOCKS_MS), options.limit)
    if options.json:
        output.print_json(*(row._asdict() for row in rows))
    else:
        print("\n".join(output.changes(rows)) if rows else "the champion has never been changed")


class Marks:
    """What is to be said of a snapshot beside its numbers, asked for each from the newest on.

    Without a change the newest of the use case's first recipe is the champion.
    """

    def __init__(self, aliases: Mapping[str, AliasChange], recipe: str, feature_set: str) -> None:
        self._following = {"champion": recipe} | {name: one.recipe for name, one in aliases.items() if not one.model}
        self._pinned = {name: one.model for name, one in aliases.items() if one.model}
        for name in self._pinned:
            self._following.pop(name, None)
        self._feature_set = feature_set

    def of(self, row: Registered) -> list[str]:
        """Return a snapshot's marks."""
        marks = [name for name, recipe in self._following.items() if recipe == row.recipe]
        for name in marks:
            del self._following[name]
        same = (row.model_id, row.created_at)
        marks += [f"{name} (pinned)" for name, one in self._pinned.items() if (one.model_id, one.created_at) == same]
        return marks + (["other features"] if row.feature_set != self._feature_set else [])


async def _usable(access: Access, registry: ModelRegistry, row: Registered) -> str:
    """Return whether a snapshot could be promoted, and why not."""
    try:
        announcement = await announcement_of(registry, row)
        if announcement is None:
            return "no: its announcement is not kept any more"
        snapshot = snapshot_named(announcement, row.model_id)
        verify(snapshot, access.settings.signing_key(), access.usecase.features.fingerprint)
    except SettingsError as error:
        return f"not checked: {error}"
    except SnapshotRefused as error:
        return f"no: {error}"
    return "yes"


async def _weights(access: Access, registry: ModelRegistry, row: Registered) -> Weights:
    features, announcement = access.usecase.features, await announcement_of(registry, row)
    if announcement is None:
        raise Refused(f"{row.model_id}: its announcement is not kept any more")
    snapshot = snapshot_named(announcement, row.model_id)
    model = unseal(snapshot, access.settings.signing_key(), features.fingerprint, features.names).model
    return weights(model, features.names)
