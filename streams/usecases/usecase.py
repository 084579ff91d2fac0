"""A use case is a declaration: which event, whose features, which labels, which model, which decision."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

from schemas.topics import Topics, catalogue
from streams.decisions.policy import Policy
from streams.decisions.verdicts import Verdicts
from streams.features.spec import FeatureSet, Stage

MOST_STAGES = 2
"""A third stage's source would need sequence numbers of its own to be de-duplicated by."""


@dataclass(frozen=True)
class UseCase:
    """Everything the streams know of a use case.

    `event` is a struct of `schemas.events`; `event_id` and `event_time` name its fields; `noun` names its
    topic; the features' stages name the entities' key fields; `recipes` are the names of some of
    `streams.models.recipes`, all learnt: the first is the champion until another is promoted.

    An event without a label `horizon_ms` after it is taken for a negative. Of the negatives the share
    `negatives_kept` is learnt, each for those that are not.

    Several *deployments* of a use case may run beside each other, one of them without a name. What they keep
    goes by `full_name`; `publishing` says whether a named one writes its scores to the public topic as well.
    """

    name: str
    noun: str
    event: type[Any]
    event_id: str
    event_time: str
    features: FeatureSet
    recipes: tuple[str, ...]
    policy: Policy
    horizon_ms: int
    negatives_kept: float = 1.0
    deployment: str = ""
    publishing: bool = False

    def __post_init__(self) -> None:
        if not (self.horizon_ms > 0 and 0 < self.negatives_kept <= 1):
            raise ValueError(f"{self.name}: horizon_ms must be more than 0, negatives_kept more than 0 and at most 1")
        if len(self.features.stages) > MOST_STAGES:
            raise ValueError(f"{self.name}: more than {MOST_STAGES} stages (infra/decisions/0004-watermarks.md)")
        Verdicts(self.policy, self.features.names, self.entities)  # ValueError where it reads what is no feature

    @cached_property
    def verdicts(self) -> Verdicts:
        """The policy over the use case's feature vectors."""
        return Verdicts(self.policy, self.features.names, self.entities)

    @cached_property
    def entities(self) -> tuple[str, ...]:
        """The entities in the order of the stages."""
        return tuple(stage.entity for stage in self.features.stages)

    def deployed(self, deployment: str, publishing: bool = False) -> Self:
        """Return the use case as the deployment of that name, "" for the one without."""
        return replace(self, deployment=deployment, publishing=publishing)

    @property
    def full_name(self) -> str:
        """The prefix of all that belongs to this deployment alone: topics, groups, states, rows."""
        return f"{self.name}.{self.deployment}" if self.deployment else self.name

    def states(self, stage: Stage, partition: int) -> str:
        """Return the name that a partition of a stage has in the state store."""
        fingerprint = stage.fingerprint(self.features.lateness).hex()
        return f"{self.full_name}.{stage.entity}.{fingerprint}.{partition}"

    def group(self, role: str) -> str:
        """Return the consumer group of a role: "stages", "history" or "learner"."""
        return f"{self.full_name}-{role}"

    def topics(self, partitions: int) -> Topics:
        """Return the deployment's topics, each public one with so many partitions."""
        return catalogue(self.name, self.noun, self.entities[1:], partitions, self.full_name, self.publishing)
