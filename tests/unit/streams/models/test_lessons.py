"""Wherever a learner is killed and whatever comes twice, it ends as one that was never interrupted, to the bit."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import encode
from schemas.events import Example, ModelAnnouncement
from streams.models.lessons import Lessons, Outcome
from streams.models.snapshot import ForeignSnapshot, ForgedSnapshot, SnapshotRefused
from streams.usecases import FRAUD
from tests.unit.streams.models.examples import BOTH, FEATURES, KEY, NAMES, NOW, content, example
from tests.weights import weights


def lessons(recipe: str = "logistic") -> Lessons:
    return Lessons((recipe,), NAMES, FEATURES)


@dataclass
class Course:
    """The two topics, and a learner process after the other: reads, learns, announces, dies."""

    recipe: str
    log: Sequence[Example]
    announced: list[bytes] = field(default_factory=list)

    def run(self, most: int, announce_every: int, unannounced: bool = False) -> Lessons:
        """One process's life: it takes up the newest announcement, and dies after `most` examples, right before
        or after it announces them."""
        course = lessons(self.recipe)
        if self.announced:
            newest = msgspec.json.decode(self.announced[-1], type=ModelAnnouncement)
            course = Lessons.resume(newest, (self.recipe,), NAMES, FEATURES, KEY)
        start = course.offsets.get(0, 0)
        for offset in range(start, min(start + most, len(self.log))):
            course.take(self.log[offset])
            course.offsets[0] = offset + 1
            last = offset + 1 in (start + most, len(self.log))
            if (offset + 1) % announce_every == 0 and not (last and unannounced):
                self.announced.append(encode(course.announce(NOW, KEY)))
        return course


@pytest.mark.parametrize("recipe", FRAUD.recipes)  # equal pickles of trees may differ in their bytes
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 5), st.booleans()), max_size=8),
)
@settings(deadline=None, max_examples=60)
def test_killed_anywhere_it_ends_as_one_that_was_not(
    recipe: str, numbers: list[int], lives: list[tuple[int, int, bool]]
) -> None:
    """After each example, before and after each announcement: model, offsets and labels seen are the same bytes."""
    log = [example(number, number % 3) for number in numbers]
    killed, whole = Course(recipe, log), Course(recipe, log)
    for most, every, unannounced in lives:
        killed.run(most, every, unannounced)
    ended, uninterrupted = killed.run(len(log), 1), whole.run(len(log), len(log))
    mine, theirs = ended.learners[recipe], uninterrupted.learners[recipe]
    assert weights(mine.model) == weights(theirs.model)
    assert (ended.offsets, ended.seen.to_bytes()) == (uninterrupted.offsets, uninterrupted.seen.to_bytes())
    assert mine.model_id == theirs.model_id
    assert theirs.examples_learnt == len(set(numbers))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), max_size=60))
@settings(deadline=None)
def test_an_example_that_comes_again_is_learnt_once(places: list[tuple[int, int]]) -> None:
    """Whatever the join repeats, in whatever order: the weights are those of the examples' first appearances."""
    log = [msgspec.structs.replace(example(10 * p + o, p), label_offset=o) for p, o in places]
    given_, once = lessons(), lessons()
    outcomes = [given_.take(one) for one in log]
    firsts = list({(one.label_partition, one.label_offset): one for one in reversed(log)})
    assert outcomes.count(Outcome.LEARNT) == len(firsts)
    assert outcomes.count(Outcome.DUPLICATE) == len(log) - len(firsts)
    for one, outcome in zip(log, outcomes, strict=True):
        if outcome is Outcome.LEARNT:
            once.take(one)
    assert weights(given_.learners["logistic"].model) == weights(once.learners["logistic"].model)


def test_examples_of_two_labels_of_an_event_are_both_learnt() -> None:
    """A correction is another label, at another place."""
    first = example(1)
    second = msgspec.structs.replace(first, label=1 - first.label, label_offset=2)
    course = lessons()
    assert [course.take(first), course.take(second)] == [Outcome.LEARNT] * 2


def test_an_example_without_a_place_is_learnt_as_often_as_it_comes() -> None:
    """Made before examples said where their label is from: nobody can tell."""
    course = lessons()
    assert [course.take(example(1, None)) for _ in range(2)] == [Outcome.LEARNT] * 2


def test_what_is_refused_says_why_and_changes_nothing() -> None:
    """Another feature set and unfit values are told apart, and leave the model as it was."""
    course = lessons()
    course.take(example(0))
    before = weights(course.learners["logistic"].model)
    assert course.take(example(1, feature_set="f" * 16)) is Outcome.FEATURE_SET
    unfit = msgspec.structs.replace(example(2), features={"amount": float("nan"), "count": 0.0})
    assert course.take(unfit) is Outcome.UNFIT_VALUE
    assert weights(course.learners["logistic"].model) == before


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"key": b"x" * 32}, ForgedSnapshot, "its signature does not fit"),
        ({"feature_set": "f" * 16}, ForeignSnapshot, "made for feature set"),
        ({"recipes": ("forest",)}, ForeignSnapshot, "made by recipe logistic, not forest"),
    ],
)
def test_what_is_not_ours_is_not_gone_on_with(changes: dict, error: type[SnapshotRefused], says: str) -> None:
    """Another key, feature set or recipe: refused, with the snapshot's name and the reason."""
    course = lessons()
    course.take(example(0))
    ours = {"recipes": ("logistic",), "names": NAMES, "feature_set": FEATURES, "key": KEY}
    with pytest.raises(error, match=says):
        Lessons.resume(course.announce(NOW, KEY), **(ours | changes))


def test_a_correction_is_judged_once_and_by_itself() -> None:
    """An event assumed to be legitimate, for ten, and then reported: the measures know it as one fraud."""
    course = lessons()
    first = [msgspec.structs.replace(example(number), label=0, weight=10.0) for number in range(3)]
    late = msgspec.structs.replace(first[1], label=1, corrects=0, label_offset=3)
    course.take_rows(course.rows([*first, late]))
    scores, labels, weights_ = course.progressive.newest(4)
    assert np.isnan(scores[:, 0]).tolist() == [False, True, False, False]
    assert labels[[0, 2, 3]].tolist() == [0, 0, 1]
    assert weights_[[0, 2, 3]].tolist() == [10.0, 10.0, 1.0]
    assert course.progressive.measures("logistic")["labels"] == 3


def test_signed_nonsense_is_refused() -> None:
    """A true signature over a course that is none."""
    course = lessons()
    course.progressive.to_bytes = lambda: b"nonsense"  # type: ignore[method-assign]
    with pytest.raises(SnapshotRefused, match="announcement: course: progressive"):
        Lessons.resume(course.announce(NOW, KEY), ("logistic",), NAMES, FEATURES, KEY)


def test_a_snapshot_names_its_parent_and_what_it_was_worth() -> None:
    """The one before it that was announced, and the measures of its recipe at the time."""
    course = lessons()
    for number in range(30):
        course.take(example(number))
    (first,) = course.announce(NOW, KEY).models
    course.announced(course.announce(NOW, KEY))
    course.take(example(31))
    announcement = course.announce(NOW, KEY)
    (second,) = announcement.models
    assert (first.parent, second.parent) == (None, first.model_id)
    assert second.metrics == course.progressive.measures("logistic")
    assert second.metrics.keys() >= {"auc", "log_loss", "calibration_error"}
    course = Lessons.resume(announcement, ("logistic",), NAMES, FEATURES, KEY)
    assert course.announce(NOW, KEY).models[0].parent == second.model_id


def test_a_model_that_was_never_sound_is_not_announced() -> None:
    """The other one is; and what is gone on from has it as it is."""
    course = Lessons(BOTH, NAMES, FEATURES)
    course.take(example(0))
    course.learners["logistic"].model["LogisticRegression"].intercept = 1e13  # type: ignore[index]
    announcement = course.announce(NOW, KEY)
    assert [snapshot.model_id for snapshot in announcement.models] == ["binned@1"]
    resumed = Lessons.resume(announcement, BOTH, NAMES, FEATURES, KEY)
    assert content(resumed) == content(course)
    assert not resumed.sound


def test_what_scorers_need_is_small_and_not_gone_on_from() -> None:
    """A fraction of the whole: no window, no guards' states, no labels seen."""
    course = Lessons(BOTH, NAMES, FEATURES)
    rng = np.random.default_rng(3)
    rows, labels = rng.normal(size=(3_000, 2)), (rng.random(3_000) < 0.1).astype(np.int8)
    for learner in course.learners.values():
        learner.learn_rows(rows, labels, np.ones(3_000))
    course.progressive.add(rng.random((20_000, 2)), np.zeros(20_000, np.int8))
    small, whole = course.announce(NOW, KEY, resumable=False), course.announce(NOW, KEY)
    assert small.models == whole.models
    assert len(encode(small)) < len(encode(whole)) / 3
    with pytest.raises(ForeignSnapshot, match="it is for scorers"):
        Lessons.resume(small, BOTH, NAMES, FEATURES, KEY)
