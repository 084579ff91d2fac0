"""Waiting until the pipeline has done everything that is there."""

import asyncio
import time

from aiokafka.errors import KafkaError
from faust.types import TP

from schemas.topics import Topic, Topics
from streams.runtime.offsets import GroupOffsets
from streams.usecases import FRAUD

POLL_SECONDS = 0.5
STALL_SECONDS = 120.0  # without any offset moving


def drained(kafka: str, topics: Topics) -> tuple[bool, str]:
    """Wait until every group has passed the ends of its topics, for as long as something moves.

    Returns whether it has, and what is left otherwise.
    """
    return asyncio.run(_drained(kafka, topics))


async def _drained(kafka: str, topics: Topics) -> tuple[bool, str]:
    reads: dict[str, list[Topic]] = {
        "stages": [topics.events, *topics.hops],
        "history": [topics.scores, topics.labels],
        "learner": [topics.examples],
    }
    groups = {name: GroupOffsets(kafka, f"{FRAUD.name}-{name}") for name in reads}
    for group in groups.values():
        await group.start()
    before: object = None
    moved, quiet = time.monotonic(), 0
    try:
        while True:
            left: dict[TP, int] = {}
            now = []
            for name, group in groups.items():
                for topic in reads[name]:
                    ends = await group.ends(topic.name, topic.partitions)
                    done = await group.committed(list(ends))
                    left |= {tp: end - max(done[tp], 0) for tp, end in ends.items() if max(done[tp], 0) < end}
                    now.append((ends, done))
            if now != before:
                before, moved = now, time.monotonic()
            quiet = 0 if left else quiet + 1
            if quiet == 3:  # nothing came of what was done last
                return True, ""
            if time.monotonic() - moved > STALL_SECONDS:
                return False, f"not drained, and nothing moves: {_told(left)}"
            await asyncio.sleep(POLL_SECONDS)
    except KafkaError as error:
        return False, f"Kafka does not tell the offsets: {error!r}"
    finally:
        for group in groups.values():
            await group.stop()


def _told(left: dict[TP, int]) -> str:
    return ", ".join(f"{count} of {tp.topic}[{tp.partition}]" for tp, count in sorted(left.items()))
