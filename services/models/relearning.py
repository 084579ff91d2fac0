"""The command that learns again, while the learner is stopped: from the registry's announcement to a new one."""

import argparse
import asyncio
from collections.abc import AsyncIterator, Iterable

from schemas.events import AliasChange
from services.models import output
from services.models.access import Access, now
from services.models.choice import Refused
from services.models.relearn import Stored, relearn
from streams.models.lessons import Lessons
from streams.runtime.offsets import GroupOffsets
from streams.runtime.reading import read_partition
from streams.runtime.topics import answering, group_members

START = "start"


async def relearn_without(access: Access, options: argparse.Namespace) -> None:
    """Announce what a learner would be that never met the examples of some events; raises Refused, SnapshotRefused."""
    key, topics = access.settings.signing_key(), access.topics
    await _learner_stopped(access)
    newest = await _newest(access, key)
    lessons = await _resumed(access, options.model, key)
    first = AliasChange("champion", access.usecase.recipes[0], "operator", "from the beginning", now())
    champion = (await access.log.aliases()).get(first.alias, first)
    examples = _examples(access, lessons.offsets.get(0))
    latest = now() + access.settings.max_ahead_ms
    became = await relearn(lessons, examples, set(options.without), latest, topics.labels.partitions, champion)
    await _learner_stopped(access)
    if await _newest(access, key) != newest:
        raise Refused(f"{topics.models.name} has had another announcement meanwhile: did a learner run?")
    announcement = lessons.announce(now(), key)
    await access.log.announce(announcement)
    models = [snapshot.model_id for snapshot in announcement.models]
    if options.json:
        output.print_json({"models": models} | became._asdict())
    else:
        print(
            f"{', '.join(models)}: {became.learnt:,} examples learnt since {options.model}, {became.left_out:,} left "
            f"out, {became.refused:,} refused; the learner may be started"
        )


async def _resumed(access: Access, model_id: str, key: bytes) -> Lessons:
    usecase, features = access.usecase, access.usecase.features
    if model_id == START:
        return Lessons(usecase.recipes, features.names, features.fingerprint, usecase.verdicts.alarms)
    async with access.registry() as registry:
        announcement = await access.choice(registry).resumable(model_id)
    alarms = usecase.verdicts.alarms
    return Lessons.resume(announcement, usecase.recipes, features.names, features.fingerprint, key, alarms)


async def _learner_stopped(access: Access) -> None:
    group = access.usecase.group("learner")
    if await asyncio.to_thread(group_members, access.settings.kafka, group):
        raise Refused(f"a learner runs in the group {group}: stop it first, and start it again after this")


async def _newest(access: Access, key: bytes) -> int | None:
    try:
        return (await access.log.newest(key))[0]
    except Refused:
        return None


async def _examples(access: Access, first: int | None) -> AsyncIterator[Iterable[Stored]]:
    """Yield the examples from an offset on, from the earliest without; raises Refused where some of them are gone."""
    topic, kafka = access.topics.examples, access.settings.kafka
    begin = await _begin(access)
    if first is not None and begin > first:
        raise Refused(f"{topic.name} begins at offset {begin} by now, {first} is gone: name a newer model")
    async for records in read_partition(kafka, topic, first=first or 0):
        yield map(Stored, records.offsets.tolist(), records.values())


async def _begin(access: Access) -> int:
    offsets = GroupOffsets(access.settings.kafka, None)
    with answering(access.settings.kafka):
        try:
            await offsets.start()
            (log,) = (await offsets.logs([access.topics.examples])).values()
        finally:
            await offsets.stop()
    return log.begin
