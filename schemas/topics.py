"""The topic catalogue: every topic of a use case, with partitions and retention; topics are created from it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

DAY_MS = 86_400_000
MB = 1 << 20


@dataclass(frozen=True)
class Topic:
    """One topic; `retention_ms` -1 keeps for ever, `compact` keeps the last record of each key."""

    name: str
    partitions: int
    retention_ms: int = 7 * DAY_MS
    max_message_bytes: int = 4 * MB
    compact: bool = False

    def config(self) -> dict[str, str]:
        """Return the topic's configuration in Kafka's own words."""
        return {
            "retention.ms": str(self.retention_ms),
            "max.message.bytes": str(self.max_message_bytes),
            "cleanup.policy": "compact" if self.compact else "delete",
        }


@dataclass(frozen=True)
class Topics:
    """The topics of one use case.

    `events` is public and keyed by the first entity; `hops` carry the event on to each further entity, in
    the order of the stages; the rest is what its name says.
    """

    events: Topic
    hops: tuple[Topic, ...]
    labels: Topic
    scores: Topic
    examples: Topic
    models: Topic
    dlq: Topic

    def __iter__(self) -> Iterator[Topic]:
        yield from (self.events, *self.hops, self.labels, self.scores, self.examples, self.models, self.dlq)


def catalogue(usecase: str, events: str, hops: tuple[str, ...], partitions: int) -> Topics:
    """Return the topics of `usecase`, whose public events are called `events` and which hops to `hops`.

    >>> [topic.name for topic in catalogue("fraud", "transactions", ("terminal",), 4)][:2]
    ['fraud.transactions', 'fraud.by-terminal']
    """

    def topic(noun: str, count: int = partitions, **options: Any) -> Topic:
        return Topic(f"{usecase}.{noun}", count, **options)

    return Topics(
        events=topic(events),
        hops=tuple(topic(f"by-{entity}") for entity in hops),
        labels=topic("labels", retention_ms=30 * DAY_MS),
        scores=topic("scores", retention_ms=30 * DAY_MS),
        # One partition: examples have one order, and a model is a function of it.
        examples=topic("examples", 1, retention_ms=90 * DAY_MS),
        models=topic("models", 1, retention_ms=-1, max_message_bytes=16 * MB, compact=True),
        # A poisoned record keeps its bytes; headers with the reason come on top.
        dlq=topic("dlq", 1, retention_ms=30 * DAY_MS, max_message_bytes=8 * MB),
    )
