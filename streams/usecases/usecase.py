"""A use case is a declaration: which event, whose features, which labels, which model, which decision."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from schemas.topics import Topics, catalogue
from streams.decisions.thresholds import Thresholds
from streams.features.spec import FeatureSet

MOST_STAGES = 2
"""A third stage's source would need sequence numbers of its own to be de-duplicated by."""


@dataclass(frozen=True)
class UseCase:
    """Everything the streams know of a use case.

    `event` is a struct of `schemas.events`; `event_id` and `event_time` name its fields; `noun` names its
    topic; the features' stages name the entities' key fields; `recipe` names one of `streams.models.recipes`.
    """

    name: str
    noun: str
    event: type[Any]
    event_id: str
    event_time: str
    features: FeatureSet
    recipe: str
    thresholds: Thresholds

    def __post_init__(self) -> None:
        if len(self.features.stages) > MOST_STAGES:
            raise ValueError(f"{self.name}: more than {MOST_STAGES} stages (infra/decisions/0004-watermarks.md)")

    @cached_property
    def entities(self) -> tuple[str, ...]:
        """The entities in the order of the stages."""
        return tuple(stage.entity for stage in self.features.stages)

    def topics(self, partitions: int) -> Topics:
        """Return the use case's topics, each public one with so many partitions."""
        return catalogue(self.name, self.noun, self.entities[1:], partitions)
