"""The table of rights: what each service of a use case reads, writes and keeps, and nothing else.

`OUTSIDERS` are the systems around: whoever sends events may not read scores, and whoever reads scores may send none.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.topics import Topic, Topics
from streams.usecases import UseCase

HISTORY = ("scores", "scores_by_entity", "labels")
REGISTRY = ("models", "models_by_day", "model_announcements", "model_aliases")
SNAPSHOTS = ("entity_states", "entity_snapshots")

OUTSIDERS = ("producer", "consumer")


@dataclass(frozen=True)
class Rights:
    """What a service may do, by the names of topics, consumer groups, and tables.

    It is a member of `groups` (a `*` at the end: of each that begins so) and may ask how far `watches` are; `sees` are
    the topics that it may know of, without what is in them; `states` are what its keys in Redis begin with.
    """

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    sees: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    watches: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    selects: tuple[str, ...] = ()
    modifies: tuple[str, ...] = ()


def user(usecase: UseCase, service: str) -> str:
    """Return the name that a service has on the servers; its deployments share it."""
    return f"{usecase.name}-{service}"


def table(usecase: UseCase, partitions: int) -> Mapping[str, Rights]:
    """Return every service's rights.

    Each of ours sees all topics: it starts when they are there as declared. And each reads the hops, the newest of
    which says whether it fits the deployment that runs.
    """
    topics = usecase.topics(partitions)
    every, hops = _names(*topics), _names(*topics.hops)
    stages, history, learner = (usecase.group(name) for name in ("stages", "history", "learner"))
    published = _names(*([topics.published] if topics.published else []))
    return {
        "worker": Rights(
            reads=(*_names(topics.events, topics.models, topics.aliases, topics.lists), *hops),
            writes=(*hops, *_names(topics.scores, topics.dlq), *published),
            sees=every,
            groups=(stages,),
            states=tuple(f"{{{usecase.full_name}.{entity}." for entity in usecase.entities),
            selects=SNAPSHOTS,
            modifies=SNAPSHOTS,
        ),
        "history": Rights(
            reads=(*_names(topics.scores, topics.labels, topics.models, topics.aliases), *hops),
            writes=(*hops, *_names(topics.examples, topics.dlq)),
            sees=every,
            groups=(history,),
            watches=(stages,),
            selects=(*HISTORY, *REGISTRY),
            modifies=(*HISTORY, *REGISTRY),
        ),
        "learner": Rights(
            reads=(*_names(topics.examples, topics.models, topics.aliases), *hops),
            writes=_names(topics.models, topics.aliases, topics.dlq),
            sees=every,
            groups=(learner,),
            watches=(stages,),
        ),
        "matured": Rights(
            reads=(*_names(topics.scores), *hops),
            writes=_names(topics.labels),
            sees=every,
            groups=(usecase.group("matured"),),
            watches=(stages,),
        ),
        "feedback": Rights(writes=_names(topics.labels), sees=every),
        "simulator": Rights(writes=_names(topics.events, topics.labels), sees=every),
        # Chooses and relearns models, keeps the lists, sends dead letters back, and watches a switch-over.
        "operator": Rights(
            reads=_names(
                *(topics.examples, topics.models, topics.aliases, topics.lists, topics.dlq), _public_scores(topics)
            ),
            writes=_names(topics.models, topics.aliases, topics.lists, topics.dlq, *topics.taking_back),
            sees=every,
            watches=(stages, learner),
            selects=REGISTRY,
        ),
        "producer": Rights(writes=_names(topics.events)),
        "consumer": Rights(reads=_names(_public_scores(topics)), groups=(f"{usecase.name}-consumer*",)),
    }


def _public_scores(topics: Topics) -> Topic:
    return topics.published or topics.scores


def _names(*topics: Topic) -> tuple[str, ...]:
    return tuple(topic.name for topic in topics)
