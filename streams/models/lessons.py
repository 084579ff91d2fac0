"""The learner's course: examples in their order, each learnt once, and model, offsets and labels seen kept as one.

They are a function of the examples alone: a learner that resumes from any of its announcements and takes the
examples from there on comes to the same weights, bit for bit.
"""

from enum import StrEnum
from typing import Self

from schemas.events import Example, ModelAnnouncement
from streams.features.seen import Seen
from streams.models.learner import Learner
from streams.models.snapshot import ForeignSnapshot, SnapshotRefused, seal, unseal


class Outcome(StrEnum):
    """What became of an example; all but the first are reasons."""

    LEARNT = "learnt"
    DUPLICATE = "duplicate"
    FEATURE_SET = "feature_set"
    UNFIT_VALUE = "unfit_value"


class Lessons:
    """A learner of `recipe` over the features `names` of `feature_set`, and how far it has come.

    `offsets` has the next offset of each partition of the example topic, `seen` the labels taken by their place.
    """

    def __init__(self, recipe: str, names: tuple[str, ...], feature_set: str) -> None:
        self.learner = Learner(recipe, names)
        self.feature_set = feature_set
        self.offsets: dict[int, int] = {}
        self.seen = Seen(0)

    @classmethod
    def resume(
        cls, announcement: ModelAnnouncement, recipe: str, names: tuple[str, ...], feature_set: str, key: bytes
    ) -> Self:
        """Return the lessons as they were announced; raise SnapshotRefused where that may not be gone on with."""
        model = unseal(announcement, key, feature_set)
        if announcement.recipe != recipe:
            raise ForeignSnapshot(
                f"snapshot {announcement.model_id}: made by recipe {announcement.recipe}, not {recipe}"
            )
        lessons = cls(recipe, names, feature_set)
        try:
            lessons.seen = Seen.from_bytes(announcement.labels_seen)
        except ValueError as error:
            raise SnapshotRefused(f"snapshot {announcement.model_id}: labels seen: {error}") from None
        lessons.learner = Learner.resume(recipe, names, model, announcement.examples_learnt)
        lessons.offsets = dict(announcement.example_offsets)
        return lessons

    def take(self, example: Example) -> Outcome:
        """Learn from an example if it is new, of this feature set, and fit; say what became of it."""
        if example.feature_set != self.feature_set:
            return Outcome.FEATURE_SET
        if not self._is_new(example):
            return Outcome.DUPLICATE
        if not self.learner.learn(example.features, example.label, example.weight):
            return Outcome.UNFIT_VALUE
        self.learner.progressive.add(example.score, example.label)
        return Outcome.LEARNT

    def announce(self, created_at: int, key: bytes) -> ModelAnnouncement:
        """Return the lessons so far, sealed with `key`; `created_at` in ms."""
        return seal(
            self.learner.model,
            model_id=self.learner.model_id,
            recipe=self.learner.recipe,
            feature_set=self.feature_set,
            example_offsets=dict(self.offsets),
            examples_learnt=self.learner.examples_learnt,
            created_at=created_at,
            key=key,
            labels_seen=self.seen.to_bytes(),
        )

    def _is_new(self, example: Example) -> bool:
        if example.label_partition is None or example.label_offset is None:
            return True  # made before examples said where their label is from
        return self.seen.add(example.label_partition, example.label_offset)
