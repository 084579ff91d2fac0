"""The topic catalogue: every topic of a use case, with partitions and retention; topics are created from it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
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
    the order of the stages; `published` is where a deployment that is switched over to writes its scores as
    well (None: nowhere else); the rest is what its name says.
    """

    events: Topic
    hops: tuple[Topic, ...]
    labels: Topic
    scores: Topic
    examples: Topic
    models: Topic
    aliases: Topic
    lists: Topic
    dlq: Topic
    published: Topic | None = None

    def __iter__(self) -> Iterator[Topic]:
        yield from (self.events, *self.hops, self.labels, self.scores, self.examples, self.models)
        yield from (self.aliases, self.lists, self.dlq)
        if self.published:
            yield self.published

    @property
    def taking_back(self) -> tuple[Topic, ...]:
        """The topics to which their dead letters may be sent back.

        Hops are none of them: a stage would take what comes a second time for a duplicate.
        """
        return self.events, self.labels, self.scores, self.examples


def catalogue(
    usecase: str,
    events: str,
    hops: tuple[str, ...],
    partitions: int,
    own: str | None = None,
    publishing: bool = False,
) -> Topics:
    """Return the topics of `usecase`, whose public events are called `events` and which hops to `hops`.

    Events and labels are public; the other topics begin with `own`, the full name of the deployment. While one
    with a name of its own is `publishing`, its scores go to the public topic as well.

    >>> [topic.name for topic in catalogue("fraud", "transactions", ("terminal",), 4)][:2]
    ['fraud.transactions', 'fraud.by-terminal']
    >>> [topic.name for topic in catalogue("fraud", "transactions", ("terminal",), 4, "fraud.v2")][:2]
    ['fraud.transactions', 'fraud.v2.by-terminal']
    """
    own = own or usecase

    def topic(noun: str, count: int = partitions, of: str = own, **options: Any) -> Topic:
        return Topic(f"{of}.{noun}", count, **options)

    scores = topic("scores", retention_ms=30 * DAY_MS)
    return Topics(
        events=topic(events, of=usecase),
        hops=tuple(topic(f"by-{entity}") for entity in hops),
        labels=topic("labels", of=usecase, retention_ms=30 * DAY_MS),
        scores=scores,
        # One partition: examples have one order, and a model is a function of it.
        examples=topic("examples", 1, retention_ms=90 * DAY_MS),
        models=topic("models", 1, retention_ms=-1, max_message_bytes=16 * MB, compact=True),
        # Which model is the champion: read by every scorer, written by the learner and by people.
        aliases=topic("aliases", 1, retention_ms=-1, max_message_bytes=16 * MB, compact=True),
        # Which entities are blocked or allowed: every deployment decides by the same lists.
        lists=topic("lists", 1, of=usecase, retention_ms=-1, compact=True),
        # A poisoned record keeps its bytes; headers with the reason come on top.
        dlq=topic("dlq", 1, retention_ms=30 * DAY_MS, max_message_bytes=8 * MB),
        published=replace(scores, name=f"{usecase}.scores") if publishing and own != usecase else None,
    )
