"""The learners' course: examples in their order, each learnt once, and models, offsets and labels seen kept as one.

They are a function of the examples alone: whoever resumes from any of its announcements and takes the examples from
there on comes to the same weights, bit for bit.
"""

from enum import StrEnum
from typing import Self

import msgspec

from schemas.events import Example, ModelAnnouncement
from streams.features.seen import Seen
from streams.models.learner import Learner
from streams.models.snapshot import ForeignSnapshot, SnapshotRefused, seal, sign, unseal, verify_announcement


class Outcome(StrEnum):
    """What became of an example; all but the first are reasons."""

    LEARNT = "learnt"
    DUPLICATE = "duplicate"
    FEATURE_SET = "feature_set"
    UNFIT_VALUE = "unfit_value"


class Course(msgspec.Struct, frozen=True):
    """What an announcement holds beside the models: the labels seen (`features.seen`)."""

    seen: bytes


_decode = msgspec.msgpack.Decoder(Course).decode


class Lessons:
    """The learners of some `recipes` over the features `names` of `feature_set`, and how far they have come.

    `learners` is by recipe, `offsets` has the next offset of each partition of the example topic, `seen` the labels
    taken by their place.
    """

    def __init__(self, recipes: tuple[str, ...], names: tuple[str, ...], feature_set: str) -> None:
        self.learners = {recipe: Learner(recipe, names) for recipe in recipes}
        self.feature_set = feature_set
        self.offsets: dict[int, int] = {}
        self.seen = Seen(0)
        self._parents: dict[str, str] = {}

    @classmethod
    def resume(
        cls, announcement: ModelAnnouncement, recipes: tuple[str, ...], names: tuple[str, ...], feature_set: str,
        key: bytes,
    ) -> Self:  # fmt: skip
        """Return the lessons as they were announced; raise SnapshotRefused where that may not be gone on with.

        A recipe that was not announced begins here, unlearnt, and one that is not asked for is left behind.
        """
        verify_announcement(announcement, key, feature_set)
        ours = [snapshot for snapshot in announcement.models if snapshot.recipe in recipes]
        if not ours:
            made = ", ".join(snapshot.recipe for snapshot in announcement.models) or "nothing"
            raise ForeignSnapshot(f"announcement: made by recipe {made}, not {', '.join(recipes)}")
        lessons = cls(recipes, names, feature_set)
        try:
            lessons.seen = Seen.from_bytes(_decode(announcement.course).seen)
        except (msgspec.DecodeError, ValueError) as error:
            raise SnapshotRefused(f"announcement: labels seen: {error}") from None
        for snapshot in ours:
            model = unseal(snapshot, key, feature_set, names).model
            lessons.learners[snapshot.recipe] = Learner.resume(snapshot.recipe, names, model, snapshot.examples_learnt)
            lessons._parents[snapshot.recipe] = snapshot.model_id
        lessons.offsets = dict(announcement.example_offsets)
        return lessons

    def take(self, example: Example) -> Outcome:
        """Learn from an example if it is new, of this feature set, and fit; say what became of it."""
        if example.feature_set != self.feature_set:
            return Outcome.FEATURE_SET
        if not self._is_new(example):
            return Outcome.DUPLICATE
        learnt = [learner.learn(example.features, example.label, example.weight) for learner in self.learners.values()]
        if not all(learnt):
            return Outcome.UNFIT_VALUE
        scores = {recipe_of(example.model_id): example.score} | example.shadow
        for recipe in scores.keys() & self.learners.keys():
            self.learners[recipe].progressive.add(scores[recipe], example.label)
        return Outcome.LEARNT

    def announce(self, created_at: int, key: bytes) -> ModelAnnouncement:
        """Return the lessons so far, sealed with `key`; `created_at` in ms."""
        offsets = dict(self.offsets)
        models = [
            seal(
                learner.model,
                model_id=learner.model_id,
                recipe=recipe,
                feature_set=self.feature_set,
                example_offsets=offsets,
                examples_learnt=learner.examples_learnt,
                created_at=created_at,
                key=key,
                parent=self._parents.get(recipe),
            )
            for recipe, learner in self.learners.items()
        ]
        course = msgspec.msgpack.encode(Course(self.seen.to_bytes()))
        return sign(ModelAnnouncement(created_at, self.feature_set, offsets, models, course), key)

    def announced(self, announcement: ModelAnnouncement) -> None:
        """Take note that `announcement` is out: its models are the parents of the next."""
        self._parents = {snapshot.recipe: snapshot.model_id for snapshot in announcement.models}

    def _is_new(self, example: Example) -> bool:
        if example.label_partition is None or example.label_offset is None:
            return True  # made before examples said where their label is from
        return self.seen.add(example.label_partition, example.label_offset)


def recipe_of(model_id: str) -> str:
    """Return the recipe that made a model.

    >>> recipe_of("logistic@300")
    'logistic'
    """
    return model_id.rpartition("@")[0]
