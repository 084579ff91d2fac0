"""What a feature set is: views over an entity's events or labels, and features derived of the event itself.

A declaration only. `table.py` folds it, the tests' slow twin recomputes it, and both speak of the same names.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]
Columns = Mapping[str, NDArray[np.float64]]

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000  # ms

EVENT_TIME = "event_time"

STATE_LAYOUT = 4
"""Raise it when the same declaration comes to keep another state."""


class Aggregate(IntEnum):
    """What a window says of the values in it; of an empty window each is 0, but for SINCE…"""

    COUNT = 0
    SUM = 1
    MEAN = 2
    STD = 3  # of the population
    MAX = 4
    SINCE = 5  # seconds since the newest earlier record; the window's length where there is none
    SINCE_POSITIVE = 6  # of labels: as SINCE, but only of those that are above 0
    SINCE_NEGATIVE = 7  # and of those that are 0


BY_LABEL = (Aggregate.SINCE_POSITIVE, Aggregate.SINCE_NEGATIVE)


class Over(IntEnum):
    """What a view looks at: the entity's events, or the labels of its events at the time they became known."""

    EVENTS = 0
    LABELS = 1


@dataclass(frozen=True)
class Window:
    """The trailing event-time window (t - length, t], the event at t included."""

    name: str
    length: int  # ms


@dataclass(frozen=True)
class Windowed:
    """One feature: an aggregate over one window of a view."""

    name: str
    aggregate: Aggregate
    window: Window


@dataclass(frozen=True)
class View:
    """Windowed features over one value of an entity's events, or over its labels (whose value is 0 or 1).

    `value` names a numeric field of the event; it may be empty over labels.
    """

    over: Over
    value: str
    features: tuple[Windowed, ...]

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        """The windows in use, shortest first."""
        return tuple(sorted({feature.window for feature in self.features}, key=lambda window: window.length))


@dataclass(frozen=True)
class Stage:
    """The features of one entity, computed by the worker that owns the entity's partition; `key` names the
    event's field that holds the entity's id."""

    entity: str
    key: str
    views: tuple[View, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The features' names, in the order of the stage's columns."""
        return tuple(feature.name for view in self.views for feature in view.features)

    def fingerprint(self, lateness: int) -> bytes:
        """Return 8 bytes that change whenever the stored state would mean something else.

        The state depends on what each view keeps and for how long, not on the features read off it.
        """
        kept = [(view.over, view.value, view.windows[-1].length + lateness) for view in self.views]
        return _digest((STATE_LAYOUT, self.entity, self.key, kept))


@dataclass(frozen=True)
class Derived:
    """A feature computed of the event and the features before it; pure, over columns.

    Raise `version` when `function` changes its meaning: models of another version are then refused.
    """

    name: str
    function: Callable[[Columns], Column]
    version: int = 1


@dataclass(frozen=True)
class FeatureSet:
    """All features of a use case; their order is the order of the feature vector.

    `values` are numeric fields of the event, features themselves; `lateness` (ms) is how much later than its
    newest record an entity may get a record and have every window around it still exact.
    """

    values: tuple[str, ...]
    stages: tuple[Stage, ...]
    derived: tuple[Derived, ...]
    lateness: int = HOUR

    def __post_init__(self) -> None:
        names = self.names
        if doubled := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"declared twice: {', '.join(sorted(doubled))}")
        if any(view.over is Over.LABELS for view in self.stages[0].views):
            raise ValueError("labels reach entities by hops, so the first stage cannot have a view over labels")
        for stage in self.stages:
            for view in stage.views:
                if view.over is Over.EVENTS and view.value not in self.values:
                    raise ValueError(f"{stage.entity}: '{view.value}' is not among the values {self.values}")
                told_apart = any(feature.aggregate in BY_LABEL for feature in view.features)
                if told_apart and view.over is not Over.LABELS:
                    raise ValueError(f"{stage.entity}: only labels are told apart into positives and negatives")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The features' names in the order of the vector: values, stages, derived."""
        staged = tuple(name for stage in self.stages for name in stage.names)
        return (*self.values, *staged, *(feature.name for feature in self.derived))

    @property
    def longest_keep(self) -> int:
        """How long (ms) an entity's newest record can matter to any feature."""
        views = [view for stage in self.stages for view in stage.views]
        return self.lateness + max(view.windows[-1].length for view in views)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change with the meaning of any feature; models carry it."""
        staged = [
            (stage.entity, stage.key, view.over, view.value, feature)
            for stage in self.stages
            for view in stage.views
            for feature in view.features
        ]
        derived = [(feature.name, feature.version) for feature in self.derived]
        return _digest((self.values, staged, derived, self.lateness)).hex()


def windowed(prefix: str, aggregate: Aggregate, *windows: Window) -> tuple[Windowed, ...]:
    """Return `prefix_<window>` for each window.

    >>> [feature.name for feature in windowed("tx_count", Aggregate.COUNT, Window("1h", HOUR))]
    ['tx_count_1h']
    """
    return tuple(Windowed(f"{prefix}_{window.name}", aggregate, window) for window in windows)


def _digest(meaning: object) -> bytes:
    return blake2b(repr(meaning).encode(), digest_size=8).digest()
