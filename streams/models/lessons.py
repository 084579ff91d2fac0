"""The learners' course: examples in their order, each learnt once, and all that comes of them kept as one.

Models, guards, the labels seen, what was said at the time and who is champion are a function of the examples alone
(and, for the champion, of what people change): whoever resumes from any of its announcements and takes the examples
from there on comes to the same, bit for bit, however they are cut into batches.
"""

import zlib
from collections.abc import Callable, Sequence
from enum import StrEnum
from operator import itemgetter
from typing import NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.events import AliasChange, Example, ModelAnnouncement, ModelSnapshot
from streams.features.seen import Seen
from streams.models.guard import Guard, bounded
from streams.models.judge import GRID, Seat, judge
from streams.models.learner import NOTHING, Learner, fit
from streams.models.packing import pack, unpack
from streams.models.progressive import Progressive
from streams.models.snapshot import ForeignSnapshot, SnapshotRefused, seal, sign, unseal, verify_announcement


class Outcome(StrEnum):
    """What became of an example; all but the first are reasons."""

    LEARNT = "learnt"
    DUPLICATE = "duplicate"
    FEATURE_SET = "feature_set"
    UNFIT_VALUE = "unfit_value"


class Taught(msgspec.Struct, frozen=True):
    """What a learner has beside its model; and the model too (`state`, and the examples `learnt`) where that may not be
    announced, as its guard may be about to take it back."""

    skipped: int
    refused: int
    guard: Guard
    learnt: int = 0
    state: bytes = b""


class Course(msgspec.Struct, frozen=True):
    """What an announcement holds beside the models: the labels seen (`features.seen`), the learners' guards, what was
    said of the newest labels (`progressive`), and who is champion."""

    seen: bytes
    learners: dict[str, Taught]
    progressive: bytes
    seat: Seat


_decode = msgspec.msgpack.Decoder(Course).decode


Alarms = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.bool_]]
"""Says of n events, features float64[n, names] and scores float64[n], which the scores are reason enough to stop."""


class Rows(NamedTuple):
    """Examples, their features float64[n, names], and which of them are fit to be learnt from."""

    examples: Sequence[Example]
    features: NDArray[np.float64]
    fits: NDArray[np.bool_]


class Lessons:
    """The learners of some `recipes` over the features `names` of `feature_set`, and how far they have come.

    `alarms` says what the scores that were given led to; without it nobody knows how well that was done.
    `learners` is by recipe, `offsets` has the next offset of each partition of the example topic, `seen` the labels
    taken by their place, `progressive` what was said of them; `seat` is the champion's, and `changes` are those of it
    that are still to be told.
    """

    def __init__(
        self, recipes: tuple[str, ...], names: tuple[str, ...], feature_set: str, alarms: Alarms | None = None
    ) -> None:
        self.names, self.feature_set = names, feature_set
        self._alarms = alarms
        self.learners = {recipe: Learner(recipe, names) for recipe in recipes}
        self.offsets: dict[int, int] = {}
        self.seen = Seen(0)
        self.progressive = Progressive(recipes)
        self.seat = Seat(recipes[0])
        self.changes: list[AliasChange] = []
        self._announced: dict[str, ModelSnapshot] = {}
        self._ahead: AliasChange | None = None

    @classmethod
    def resume(
        cls, announcement: ModelAnnouncement, recipes: tuple[str, ...], names: tuple[str, ...], feature_set: str,
        key: bytes, alarms: Alarms | None = None,
    ) -> Self:  # fmt: skip
        """Return the lessons as they were announced; raise SnapshotRefused where that may not be gone on with.

        A recipe that was not announced begins here, unlearnt, and one that is not asked for is left behind.
        """
        verify_announcement(announcement, key, feature_set)
        if not announcement.course:
            raise ForeignSnapshot("announcement: it is for scorers, nothing goes on from it")
        ours = [snapshot for snapshot in announcement.models if snapshot.recipe in recipes]
        if not ours:
            made = ", ".join(snapshot.recipe for snapshot in announcement.models) or "nothing"
            raise ForeignSnapshot(f"announcement: made by recipe {made}, not {', '.join(recipes)}")
        lessons = cls(recipes, names, feature_set, alarms)
        try:
            course = _decode(zlib.decompress(announcement.course))
            lessons.seen = Seen.from_bytes(course.seen)
            lessons.progressive = Progressive.from_bytes(course.progressive, recipes)
        except (zlib.error, msgspec.DecodeError, ValueError) as error:
            raise SnapshotRefused(f"announcement: course: {error}") from None
        for snapshot in ours:
            one = lessons.learners[snapshot.recipe]
            one.model, one.calibrator = unseal(snapshot, key, feature_set, names)
            one.examples_learnt = snapshot.examples_learnt
            lessons._announced[snapshot.recipe] = snapshot
        for recipe, taught in course.learners.items():
            if learner := lessons.learners.get(recipe):
                lessons._go_on(learner, taught)
        if course.seat.champion in recipes:
            lessons.seat = course.seat
        lessons.offsets = dict(announcement.example_offsets)
        return lessons

    def rows(self, examples: Sequence[Example]) -> Rows:
        """Return `examples` as rows; nothing is learnt yet."""
        get, missing = itemgetter(*self.names), (np.nan,) * len(self.names)
        values = [get(one.features) if self._is_ours(one) else missing for one in examples]
        features = np.array(values, np.float64).reshape(len(examples), len(self.names))
        return Rows(examples, features, fit(features, np.array([one.weight for one in examples])))

    def take_rows(self, rows: Rows) -> list[Outcome]:
        """Learn from the examples that are new, of this feature set, and fit; say what became of each."""
        outcomes = [self._look(example, fits) for example, fits in zip(rows.examples, rows.fits.tolist(), strict=True)]
        new = np.array([outcome is Outcome.LEARNT for outcome in outcomes], np.bool_)
        taken = [example for example, is_new in zip(rows.examples, new.tolist(), strict=True) if is_new]
        if taken:
            labels = np.array([one.label for one in taken], np.int8)
            weights = np.array([one.weight for one in taken])
            corrects = np.array([NOTHING if one.corrects is None else one.corrects for one in taken], np.int8)
            for learner in self.learners.values():
                learner.learn_rows(rows.features[new], labels, weights, corrects)
            # A correction says nothing of events that were left out: its weight is that of what it corrects.
            self._judge(taken, rows.features[new], labels, np.where(corrects == NOTHING, weights, 1.0), corrects)
        return outcomes

    def take(self, example: Example) -> Outcome:
        """Take one example as `take_rows` does."""
        return self.take_rows(self.rows([example]))[0]

    def announce(self, created_at: int, key: bytes, resumable: bool = True) -> ModelAnnouncement:
        """Return the lessons so far, sealed with `key`; `created_at` in ms. Of a model that is not sound the one that
        was announced last is announced again.

        With all that they go on from, unless it is for scorers only: that is a fraction of the size.
        """
        models = []
        for recipe, learner in self.learners.items():
            if _sound(learner):
                models.append(self._sealed(learner, created_at, key))
            elif recipe in self._announced:
                models.append(self._announced[recipe])
        course = self._course() if resumable else b""
        return sign(ModelAnnouncement(created_at, self.feature_set, dict(self.offsets), models, course), key)

    def _course(self) -> bytes:
        """Return what these lessons go on from beside the models that are announced."""
        taught = {
            recipe: Taught(
                one.examples_skipped,
                one.examples_refused,
                one.guard,
                one.examples_learnt,
                b"" if _sound(one) else pack(one.model, one.calibrator),
            )
            for recipe, one in self.learners.items()
        }
        course = Course(self.seen.to_bytes(), taught, self.progressive.to_bytes(), self.seat)
        return zlib.compress(msgspec.msgpack.encode(course), level=1)

    def _sealed(self, learner: Learner, created_at: int, key: bytes) -> ModelSnapshot:
        before = self._announced.get(learner.recipe)
        return seal(
            learner.model,
            learner.calibrator,
            model_id=learner.model_id,
            recipe=learner.recipe,
            feature_set=self.feature_set,
            example_offsets=dict(self.offsets),
            examples_learnt=learner.examples_learnt,
            created_at=created_at,
            key=key,
            parent=before.model_id if before else None,
            metrics=self.progressive.measures(learner.recipe),
        )

    @property
    def sound(self) -> bool:
        """Whether all models are fit to be announced; where one is not, its guard may be about to take it back."""
        return all(map(_sound, self.learners.values()))

    def announced(self, announcement: ModelAnnouncement) -> None:
        """Take note that `announcement` is out: its models are the parents of the next."""
        self._announced = {snapshot.recipe: snapshot for snapshot in announcement.models}

    @property
    def out(self) -> ModelSnapshot | None:
        """The champion as it is out, which may be an older one than is learning; None before there is one."""
        return self._announced.get(self.seat.champion)

    def follow(self, change: AliasChange) -> None:
        """Take note of a change of the champion, whoever made it.

        One of a learner that was further ahead, which these lessons will come to decide again, waits until they are
        there; one that was decided before the champion's time says nothing new.
        """
        if change.recipe not in self.learners:
            return
        if change.by == "learner" and change.judged > self.progressive.seen:
            self._ahead = change
        elif change.by == "operator" or change.judged > self.seat.since:
            self._seat(change)

    def begin_with(self, change: AliasChange) -> None:
        """Take the champion over that served before these lessons, which have nothing yet to judge by."""
        if change.recipe in self.learners:
            self._seat(change)

    def _go_on(self, learner: Learner, taught: Taught) -> None:
        learner.examples_skipped, learner.examples_refused = taught.skipped, taught.refused
        learner.guard = taught.guard
        if not taught.state:
            return
        try:
            learner.model, learner.calibrator = unpack(learner.recipe, self.names, taught.state)
        except Exception as error:  # whatever another version of River brings
            raise SnapshotRefused(f"announcement: {learner.recipe}: cannot be loaded: {error}") from None
        learner.examples_learnt = taught.learnt

    def _seat(self, change: AliasChange) -> None:
        self._ahead = None
        pinned = change.model is not None
        if (change.recipe, pinned) != (self.seat.champion, self.seat.pinned):
            self.seat = Seat(change.recipe, None, self.progressive.seen, pinned)
            self.changes.clear()

    def _look(self, example: Example, fits: bool) -> Outcome:
        if not self._is_of_feature_set(example):
            return Outcome.FEATURE_SET
        if not fits:
            return Outcome.UNFIT_VALUE
        return Outcome.LEARNT if self._is_new(example) else Outcome.DUPLICATE

    def _is_of_feature_set(self, example: Example) -> bool:
        return example.feature_set == self.feature_set

    def _is_ours(self, example: Example) -> bool:
        return self._is_of_feature_set(example) and all(name in example.features for name in self.names)

    def _is_new(self, example: Example) -> bool:
        if example.label_partition is None or example.label_offset is None:
            return True  # made before examples said where their label is from
        return self.seen.add(example.label_partition, example.label_offset)

    def _judge(
        self,
        examples: Sequence[Example],
        features: NDArray[np.float64],
        labels: NDArray[np.int8],
        weights: NDArray[np.float64],
        corrects: NDArray[np.int8],
    ) -> None:
        """Take what was said of the examples, and see at each point of the grid who is champion."""
        scores = np.array([self._scores(example) for example in examples], np.float64)
        events = np.array([zlib.crc32(example.event_id.encode()) for example in examples], np.uint32)
        alarms = np.stack([self._alarms(features, one) for one in scores.T], axis=1) if self._alarms else None
        at = 0
        while at < len(examples):
            end = min(len(examples), at + GRID - self.progressive.seen % GRID)
            part = slice(at, end)
            raised = None if alarms is None else alarms[part]
            self.progressive.add(scores[part], labels[part], weights[part], events[part], corrects[part], raised)
            at = end
            if self.progressive.seen % GRID == 0:
                self._decide(examples[end - 1].label_time)

    def _scores(self, example: Example) -> list[float]:
        by_recipe = example.shadow | {recipe_of(example.model_id): example.score}
        return [by_recipe.get(recipe, np.nan) for recipe in self.learners]

    def _decide(self, now: int) -> None:
        seen = self.progressive.seen
        verdict = judge(self.progressive, self.seat)
        if verdict:
            self.seat = Seat(verdict.champion, self.seat.champion, seen)
            self._ahead = None  # this one is told after it
            # The time is that of the stream: decided again after a crash, it is the same record.
            self.changes.append(AliasChange("champion", verdict.champion, "learner", verdict.reason, now, judged=seen))
        if self._ahead and self._ahead.judged <= seen:
            ahead, self._ahead = self._ahead, None
            self.follow(ahead)


def _sound(learner: Learner) -> bool:
    return bounded(learner.model) and not learner.guard.on_trial


def recipe_of(model_id: str) -> str:
    """Return the recipe that made a model.

    >>> recipe_of("logistic@300")
    'logistic'
    """
    return model_id.rpartition("@")[0]
