"""Guards and champion: also where a learner is killed, they are those of one that was not; people go first."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import encode
from schemas.events import AliasChange, ModelAnnouncement, ModelSnapshot
from streams.models import guard, judge
from streams.models import lessons as course_of
from streams.models.judge import Seat
from streams.models.lessons import Lessons
from streams.models.snapshot import verify_announcement
from tests.unit.streams.models.examples import BOTH, FEATURES, KEY, LENGTH, LIVELY, NAMES, NOW, content, example

SMALL = {
    judge: {"BLOCK": 4, "PROBATION": 256, "FEWEST_POSITIVES": 3},
    course_of: {"GRID": 16},
    guard: {"BLOCK": 8, "GOOD_EVERY": 16, "FREEZE": 16, "USUAL": 3, "JUMP": 2.0, "TIMES": 1.3},
}


@pytest.fixture(scope="module")
def small() -> Iterator[None]:
    """Decisions after a few labels instead of thousands."""
    with pytest.MonkeyPatch.context() as patched:
        for module, constants in SMALL.items():
            for name, value in constants.items():
                patched.setattr(module, name, value)
        yield


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
