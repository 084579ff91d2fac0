"""Learning again without what should not have been learnt: from an announcement before it, the rest of the examples.

The order of effects: 1. the examples are learnt here, in their order, those of the events named left out; 2. if still
nobody else has announced anything, the outcome is announced; the learner, started again, goes on from there. Stopped
before 2 nothing has changed.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

from schemas.codec import Decoder, Poison
from schemas.events import AliasChange, Example
from services.models.choice import Refused
from streams.models.lessons import Lessons, Outcome

_decode = Decoder(Example, "label_time")


class Relearnt(NamedTuple):
    """What became of the examples."""

    learnt: int
    left_out: int
    refused: int


class Stored(NamedTuple):
    """A record of the example topic."""

    offset: int
    value: bytes | None


async def relearn(
    lessons: Lessons,
    examples: AsyncIterator[Iterable[Stored]],
    without: set[str],
    latest: int,
    label_partitions: int,
    champion: AliasChange,
) -> Relearnt:
    """Go on with `lessons` through the examples of partition 0, but for those of the events in `without`.

    Takes what the learner takes, in the same order, and so comes to the weights of one that never met the events left
    out, bit for bit; those count as seen, so that they are not learnt when they come again. What the labels would have
    decided of the champion meanwhile is not told: it is `champion`, whom the scorers go by. Raises Refused where an
    event in `without` has no example here.
    """
    lessons.follow(champion)
    outcomes = Counter[Outcome]()
    left_out, missing = 0, set(without)
    async for records in examples:
        taken: list[Example] = []
        for offset, value in records:
            lessons.offsets[0] = offset + 1
            try:
                example = _decode(value, latest)
            except Poison:
                continue  # the learner has put it aside
            if example.event_id in without:
                outcomes.update(lessons.take_rows(lessons.rows(taken)))  # what is seen, is seen in order
                taken = []
                missing.discard(example.event_id)
                left_out += _leave_out(lessons, example)
            elif (example.label_partition or 0) < label_partitions:
                taken.append(example)
        outcomes.update(lessons.take_rows(lessons.rows(taken)))
    if missing:
        first, more = min(missing), len(missing) - 1
        raise Refused(f"{first}{f' and {more} more' if more else ''}: no example of it was learnt since then")
    lessons.begin_with(champion)
    if not lessons.sound:
        raise Refused("what was learnt is not sound, a guard is about to take it back: leave out more, or less")
    return Relearnt(outcomes[Outcome.LEARNT], left_out, outcomes[Outcome.FEATURE_SET] + outcomes[Outcome.UNFIT_VALUE])


def _leave_out(lessons: Lessons, example: Example) -> bool:
    """Note that an example was met; return whether that is new."""
    if example.label_partition is None or example.label_offset is None:
        return True
    return lessons.seen.add(example.label_partition, example.label_offset)
