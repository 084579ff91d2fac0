"""A campaign that finds no difference says something only if it would find one: each kind is shown to it here."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from schemas.events import Example, Label
from streams.models.judge import Seat
from streams.models.lessons import Lessons
from streams.models.packing import pack
from streams.usecases import FRAUD
from tests.chaos.found import Scores
from tests.chaos.logs import Poisoned
from tests.chaos.oracle import Expected, changes, digest
from tests.chaos.verdict import (
    Verdict,
    judge_course,
    judge_dead_letters,
    judge_history,
    judge_learning,
    judge_scores,
    judge_states,
)
from tests.chaos.workload import Workload

N = 50
KEY = b"k" * 32
WORKLOAD = Workload(1, 10.0, 5.0, 1_700_000_000_000)
LABEL = Label("e00000001", 1, 1)
VECTORS = np.random.default_rng(1).random((N, 4))


def right() -> tuple[Expected, Scores]:
    """What must have come, and the same of what has."""
    expected = Expected(np.ones(N, bool), digest(VECTORS))
    expected.events, expected.labels, expected.examples = N, 1, 1
    expected.labelled, expected.changes = {"e00000001"}, [LABEL]
    expected.exampled = [LABEL]
    expected.states = {("customer", b"c1"): b"state", ("terminal", b"t1"): b"other"}
    expected.poison = [Poisoned("fraud.transactions/0/7", "null", b"c1", None)]
    scores = Scores(np.full(N, 5), np.zeros(N, np.int64), digest(VECTORS), digest(VECTORS), total=N)
    return expected, scores


def taught(value: float) -> Lessons:
    lessons = Lessons(FRAUD.recipes, FRAUD.features.names, FRAUD.features.fingerprint)
    features = dict.fromkeys(FRAUD.features.names, value)
    lessons.take(Example("e00000001", 1, 1, 1, features, 0.5, "other@0", FRAUD.features.fingerprint))
    return lessons


def test_what_is_right_has_no_difference() -> None:
    """The same states, scores, letters, rows and weights: nothing is named, and there is a line for each."""
    expected, scores = right()
    expected.lessons = taught(1.5)
    verdict = Verdict()
    judge_scores(verdict, WORKLOAD, N, expected, scores)
    judge_states(verdict, expected, dict(expected.states))
    judge_learning(verdict, expected, taught(1.5).announce(1, KEY), KEY, 1)
    judge_course(verdict, expected, taught(1.5).announce(2, KEY), KEY)
    judge_dead_letters(verdict, expected, list(expected.poison), 3)
    judge_history(verdict, scores, np.ones(N, bool), 0)
    assert verdict.differences == []
    assert [name for name, _ in verdict.lines] == [
        "events in", "events scored", "features", "entity states", "labels", "learner weights",
        "learner's record", "dead letters", "history rows",
    ]  # fmt: skip


def unsent(expected: Expected, scores: Scores) -> None:
    expected.present[7], scores.at[7] = False, 0


def unscored(_: Expected, scores: Scores) -> None:
    scores.at[7] = 0


def unknown(_: Expected, scores: Scores) -> None:
    scores.alien = 1


def miscounted(_: Expected, scores: Scores) -> None:
    scores.features[7] ^= np.uint64(1)


def scored_otherwise(_: Expected, scores: Scores) -> None:
    scores.changed.append(7)


@pytest.mark.parametrize(
    ("mishap", "named"),
    [
        (unsent, "e00000007 …) never reached"),
        (unscored, "e00000007 …) have no score"),
        (unknown, "1 others were never sent"),
        (miscounted, "e00000007 …) were scored with other customer features"),
        (scored_otherwise, "e00000007 …) were scored twice with different features"),
    ],
)
def test_a_score_that_is_not_as_it_must_be_is_named(mishap: Callable[[Expected, Scores], None], named: str) -> None:
    """One event of fifty is enough."""
    expected, scores = right()
    mishap(expected, scores)
    verdict = Verdict()
    judge_scores(verdict, WORKLOAD, N, expected, scores)
    (only,) = verdict.differences
    assert named in only


@pytest.mark.parametrize(
    ("states", "named"),
    [
        ({("customer", b"c1"): b"state"}, "1 states are missing from Valkey: [('terminal', b't1')]"),
        ({("customer", b"c1"): b"stat!", ("terminal", b"t1"): b"other"}, "1 states are different in Valkey"),
        (
            {("customer", b"c1"): b"state", ("terminal", b"t1"): b"other", ("customer", b"c2"): b""},
            "1 states are not to be in Valkey",
        ),
    ],
)
def test_a_state_that_is_not_as_it_must_be_is_named(states: dict[tuple[str, bytes], bytes], named: str) -> None:
    """Missing, other bytes, or one too many."""
    verdict = Verdict()
    judge_states(verdict, right()[0], states)
    (only,) = verdict.differences
    assert named in only


def test_another_model_is_a_difference() -> None:
    """Weights that differ, though the number of examples is the same; no model; a label that was lost, one too many."""
    expected, _ = right()
    expected.lessons = taught(1.5)
    verdict = Verdict()
    judge_learning(verdict, expected, taught(1.25).announce(1, KEY), KEY, 1)
    judge_learning(verdict, expected, None, KEY, 1)
    expected.exampled = [Label("e00000002", 1, 1)]
    judge_learning(verdict, expected, taught(1.5).announce(1, KEY), KEY, 0)
    assert verdict.differences == [
        f"not the uninterrupted learner's: {', '.join(f'{recipe}@1' for recipe in FRAUD.recipes)}",
        "no model was announced",
        "1 labels led to no example: [('e00000001', 1, 1)]",
        "1 examples of labels that say nothing new: [('e00000002', 1, 1)]",
        "0 labels kept of 1",
    ]


def other_offset(lessons: Lessons) -> None:
    lessons.offsets[0] = 5


def other_guard(lessons: Lessons) -> None:
    next(iter(lessons.learners.values())).guard.frozen = 1


def other_good_state(lessons: Lessons) -> None:
    learner = next(iter(lessons.learners.values()))
    learner.guard.good = pack(learner.model, learner.calibrator)


def another_label(lessons: Lessons) -> None:
    lessons.seen.add(0, 9)


def another_score(lessons: Lessons) -> None:
    lessons.progressive.add(np.full((1, len(FRAUD.recipes)), 0.5), np.array([1], np.int8))


def another_champion(lessons: Lessons) -> None:
    lessons.seat = Seat(FRAUD.recipes[1])


@pytest.mark.parametrize(
    ("mishap", "named"),
    [
        (other_offset, "offsets"),
        (other_guard, "guards"),
        (other_good_state, "guards"),
        (another_label, "labels seen"),
        (another_score, "scores judged"),
        (another_champion, "champion"),
    ],
)
def test_a_course_that_is_not_as_it_must_be_is_named(mishap: Callable[[Lessons], None], named: str) -> None:
    """What a learner would go on with is compared, though the models are right."""
    expected, _ = right()
    expected.lessons = taught(1.5)
    found, verdict = taught(1.5), Verdict()
    mishap(found)
    judge_course(verdict, expected, found.announce(1, KEY), KEY)
    assert verdict.differences == [f"a learner would go on with other {named}"]


def test_a_record_that_no_learner_can_go_on_from_is_a_difference() -> None:
    """None at all, one that is for scorers, one that is signed with another key, one of other models."""
    expected, _ = right()
    expected.lessons = taught(1.5)
    verdict = Verdict()
    judge_course(verdict, expected, None, KEY)
    judge_course(verdict, expected, taught(1.5).announce(1, KEY, resumable=False), KEY)
    judge_course(verdict, expected, taught(1.5).announce(1, b"x" * 32), KEY)
    judge_course(verdict, expected, taught(1.25).announce(1, KEY), KEY)
    none, for_scorers, forged, other = verdict.differences
    assert none == "there is no record for a learner to go on from"
    assert for_scorers.startswith("no learner can go on: announcement: it is for scorers")
    assert forged.startswith("no learner can go on: ")
    assert other == "a learner would go on with other models"


def test_only_what_is_new_is_a_change() -> None:
    """A label said again or overtaken by a later one is none; the later of two in time counts, whatever came last."""
    first, again, stale = Label("e", 5, 1), Label("e", 5, 1), Label("e", 4, 0)
    later, other = Label("e", 6, 0), Label("f", 1, 0)
    assert changes([first, again, stale, later, other, first]) == [first, later, other]


def test_the_dlq_holds_the_poison_and_nothing_else() -> None:
    """A letter with another reason is one that is missing and one too many."""
    expected, _ = right()
    verdict = Verdict()
    judge_dead_letters(verdict, expected, [replace_reason(expected.poison[0])], 0)
    missing, unexpected = verdict.differences
    assert missing.startswith("poison not buried as it should be: 1: fraud.transactions/0/7 null")
    assert unexpected.startswith("dead letters that were no such poison: 1: fraud.transactions/0/7 invalid")


def replace_reason(letter: Poisoned) -> Poisoned:
    return letter._replace(reason="invalid")


def test_the_history_has_a_row_for_each_score() -> None:
    """One row that is missing and one of an event that has no score are named."""
    _, scores = right()
    scores = replace(scores, at=np.where(np.arange(N) == 3, 0, 5))
    verdict = Verdict()
    judge_history(verdict, scores, np.arange(N) != 7, 0)
    assert [difference[:34] for difference in verdict.differences] == [
        "1 events (e00000007 …) have a scor",
        "1 events (e00000003 …), 0 others: ",
    ]
