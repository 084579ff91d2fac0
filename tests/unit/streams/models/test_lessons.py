"""Wherever a learner is killed and whatever comes twice, it ends as one that was never interrupted, to the bit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import encode
from schemas.events import AliasChange, Example, ModelAnnouncement, ModelSnapshot
from streams.models import guard, judge
from streams.models import lessons as course_of
from streams.models.judge import Seat
from streams.models.lessons import Lessons, Outcome
from streams.models.snapshot import ForeignSnapshot, ForgedSnapshot, SnapshotRefused, verify_announcement
from streams.usecases import FRAUD
from tests.weights import weights

NAMES, FEATURES, KEY = ("amount", "count"), "0123456789abcdef", b"k" * 32
NOW = 1_700_000_000_000


def example(number: int, label_partition: int | None = 0, feature_set: str = FEATURES) -> Example:
    amount, count = np.random.default_rng(number).normal(size=2).tolist()
    return Example(
        event_id=f"e{number}",
        event_time=number,
        label_time=number,
        label=int(amount > 0.5),
        features={"amount": amount, "count": count},
        score=0.1,
        model_id="logistic@0",
        feature_set=feature_set,
        label_partition=label_partition,
        label_offset=None if label_partition is None else number,
    )


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


BOTH = ("logistic", "binned")
SMALL = {
    judge: {"BLOCK": 4, "PROBATION": 256, "FEWEST_POSITIVES": 3},
    course_of: {"GRID": 16},
    guard: {"BLOCK": 8, "GOOD_EVERY": 16, "FREEZE": 16, "USUAL": 3, "JUMP": 2.0, "TIMES": 1.3},
}
LENGTH = 420
BURST = range(300, 340)


@pytest.fixture(scope="module")
def small() -> Iterator[None]:
    """Decisions after a few labels instead of thousands."""
    with pytest.MonkeyPatch.context() as patched:
        for module, constants in SMALL.items():
            for name, value in constants.items():
                patched.setattr(module, name, value)
        yield


def lively(number: int) -> Example:
    """First the challenger's score is the better one, then the champion's; labels of a burst are turned round."""
    one = example(number, number % 2)
    right, rng = one.label * 0.9 + 0.05, np.random.default_rng(number)
    close, far = right + rng.normal(0, 0.02), 0.5 + rng.normal(0, 0.02)
    ours, theirs = (far, close) if number < 180 else (close, far)
    label = 1 - one.label if number in BURST else one.label
    corrects = 1 - label if number % 50 == 7 else None
    return msgspec.structs.replace(one, label=label, score=ours, shadow={"binned": theirs}, corrects=corrects)


LIVELY = [lively(number) for number in [*range(200), *range(150, LENGTH)]]


@dataclass
class Process:
    """The three topics, and a learner process after the other, as the agent has it."""

    announced: list[bytes] = field(default_factory=list)
    told: list[AliasChange] = field(default_factory=list)

    def run(self, most: int, batch: int, announce_every: int, unannounced: bool = False) -> Lessons:
        """Read so many examples in batches, tell each change, announce now and then; die before the last announcement
        or after it."""
        lessons = Lessons(BOTH, NAMES, FEATURES)
        if self.announced:
            newest = msgspec.json.decode(self.announced[-1], type=ModelAnnouncement)
            lessons = Lessons.resume(newest, BOTH, NAMES, FEATURES, KEY)
        if self.told:
            lessons.follow(self.told[-1])
        start = lessons.offsets.get(0, 0)
        end = min(start + most, len(LIVELY))
        for number, at in enumerate(range(start, end, batch)):
            taken = LIVELY[at : min(at + batch, end)]
            lessons.take_rows(lessons.rows(taken))
            lessons.offsets[0] = at + len(taken)
            self.told += lessons.changes
            lessons.changes.clear()
            if number % announce_every == 0 and not (at + batch >= end and unannounced):
                announcement = lessons.announce(NOW, KEY)
                lessons.announced(announcement)
                if announcement.models:
                    self.announced.append(encode(announcement))
        return lessons


def content(lessons: Lessons) -> tuple[object, ...]:
    """All that the lessons have come to."""
    learners = [
        (weights(one.model), one.calibrator.to_array().tobytes(), one.guard, one.model_id, one.examples_learnt)
        for one in lessons.learners.values()
    ]
    return learners, lessons.offsets, lessons.seen.to_bytes(), lessons.progressive.to_bytes(), lessons.seat


@pytest.mark.usefixtures("small")
def test_something_happens_in_the_lively_course() -> None:
    """The course of the next test has a promotion, a rollback, and a burst that the guards take back."""
    process = Process()
    lessons = process.run(LENGTH * 2, 7, 1 << 30)
    assert [change.recipe for change in process.told] == ["binned", "logistic"]
    assert [change.reason.split(":")[0] for change in process.told] == ["promotion", "rollback"]
    assert all(learner.guard.trips > 0 for learner in lessons.learners.values())
    assert all(learner.examples_skipped > 0 for learner in lessons.learners.values())


@pytest.mark.usefixtures("small")
@given(
    st.lists(st.tuples(st.integers(1, 200), st.integers(1, 64), st.integers(1, 5), st.booleans()), max_size=6),
    st.integers(1, 500),
)
@settings(deadline=None, max_examples=12)
def test_killed_anywhere_guards_and_champion_are_the_same(
    lives: list[tuple[int, int, int, bool]], last_batch: int
) -> None:
    """Whatever the batches, and wherever it dies: models, guards, what was said, and who is champion since when; the
    changes that are told again are the same records."""
    killed, whole = Process(), Process()
    for life in lives:
        killed.run(*life)
    assert content(killed.run(LENGTH * 2, last_batch, 1)) == content(whole.run(LENGTH * 2, 1, 1 << 30))
    assert killed.told[-1] == whole.told[-1]
    assert {encode(change) for change in killed.told} == {encode(change) for change in whole.told}


def pinned(recipe: str) -> AliasChange:
    model = ModelSnapshot(f"{recipe}@5", recipe, FEATURES, {}, 5, NOW, None, {}, b"")
    return AliasChange("champion", recipe, "operator", "a person's reason", NOW, model)


@pytest.mark.usefixtures("small")
def test_a_persons_pin_stands_until_it_is_lifted() -> None:
    """While a model is pinned the labels change nothing; afterwards only those that come then do."""
    lessons = Lessons(BOTH, NAMES, FEATURES)
    lessons.follow(pinned("logistic"))
    for one in LIVELY[:150]:
        lessons.take(one)
    assert lessons.changes == []
    lessons.follow(AliasChange("champion", "logistic", "operator", "go on", NOW))
    assert lessons.seat == Seat("logistic", since=150)
    for one in LIVELY[10:110]:  # the same labels again, under other places
        lessons.take(msgspec.structs.replace(one, label_offset=1000 + (one.label_offset or 0)))
    (change,) = lessons.changes
    assert (change.recipe, change.by, change.judged) == ("binned", "learner", lessons.seat.since)
    assert change.judged >= 150 + 64


@pytest.mark.usefixtures("small")
def test_what_is_told_last_counts() -> None:
    """Decided after a crash on other grounds, sooner than what a learner further ahead had told, it stays."""
    lessons = Lessons(BOTH, NAMES, FEATURES)
    lessons.follow(AliasChange("champion", "logistic", "learner", "by another learner", NOW, judged=128))
    for one in LIVELY[:140]:
        lessons.take(one)
    assert lessons.progressive.seen >= 128
    assert [change.recipe for change in lessons.changes] == ["binned"]
    assert lessons.seat.champion == "binned"


def test_a_change_that_is_old_or_of_another_recipe_says_nothing() -> None:
    """What the learner itself decided before the champion's time, and recipes that are not learnt here."""
    lessons = Lessons(BOTH, NAMES, FEATURES)
    lessons.progressive.seen, lessons.seat = 500, Seat("binned", "logistic", 400)
    for change in (
        AliasChange("champion", "logistic", "learner", "", NOW, judged=300),
        AliasChange("champion", "binned", "learner", "", NOW, judged=400),
        AliasChange("champion", "forest", "operator", "", NOW),
    ):
        lessons.follow(change)
        assert lessons.seat == Seat("binned", "logistic", 400)


def test_another_recipe_may_join_and_one_may_leave() -> None:
    """What was learnt goes on; the new one is unlearnt, and who is champion stays if it is still there."""
    course = Lessons(BOTH, NAMES, FEATURES)
    course.seat = Seat("binned", "logistic", 0)
    for number in range(20):
        course.take(example(number))
    announcement = course.announce(NOW, KEY)
    resumed = Lessons.resume(announcement, ("logistic",), NAMES, FEATURES, KEY)
    assert resumed.learners["logistic"].model_id == "logistic@20"
    assert resumed.seat == Seat("logistic")
    back = Lessons.resume(resumed.announce(NOW, KEY), ("binned", "logistic"), NAMES, FEATURES, KEY)
    assert [learner.model_id for learner in back.learners.values()] == ["binned@0", "logistic@20"]
    assert back.seat == Seat("logistic")


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


@pytest.mark.usefixtures("small")
def test_after_a_trip_a_model_is_not_announced_before_it_is_seen_to_be_sound() -> None:
    """The first block after a freeze may be more of the same: until then the last one that was sound goes out again,
    signed as it was, and the other recipe's newest."""
    course, trials, last = Lessons(BOTH, NAMES, FEATURES), 0, dict.fromkeys(BOTH, "")
    for one in LIVELY:
        course.take(one)
        announcement = course.announce(NOW, KEY, resumable=False)
        verify_announcement(announcement, KEY, FEATURES)
        said = {snapshot.recipe: snapshot.model_id for snapshot in announcement.models}
        for recipe, learner in course.learners.items():
            trials += learner.guard.on_trial
            assert said[recipe] == (last[recipe] if learner.guard.on_trial else learner.model_id)
        assert course.sound is not any(learner.guard.on_trial for learner in course.learners.values())
        course.announced(announcement)
        last = said
    assert trials > 0
    assert course.sound


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
