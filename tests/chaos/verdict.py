"""The comparison: what has come of a campaign against what must have."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from schemas.events import Label, ModelAnnouncement
from streams.models.guard import Guard
from streams.models.lessons import Lessons
from streams.models.packing import unpack
from streams.models.snapshot import SnapshotRefused, snapshot_of, unseal
from streams.usecases import FRAUD
from tests.chaos.fleet import End
from tests.chaos.found import Scores, kinds
from tests.chaos.logs import Poisoned
from tests.chaos.oracle import Expected
from tests.chaos.workload import FORGOTTEN_MS, Workload
from tests.weights import weights

SHOWN = 5


@dataclass
class Verdict:
    """The lines of the table, and every difference by name; none of these is what the project promises."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    def say(self, name: str, what: str) -> None:
        """Add a line to the table."""
        self.lines.append((name, what))

    def unless(self, holds: bool, difference: str) -> None:
        """Note a difference unless something holds."""
        if not holds:
            self.differences.append(difference)


def judge_scores(verdict: Verdict, workload: Workload, sent: int, expected: Expected, scores: Scores) -> None:
    """Every event that was sent has a score, with the features of an uninterrupted run."""
    scored, present = scores.at > 0, int(expected.present.sum())
    verdict.say(
        "events in",
        f"{present:,} distinct of {sent:,} sent, {expected.events - present:,} repeated, "
        f"{int((workload.time < workload.sent_at - 1)[:sent].sum()):,} late or out of order",
    )
    lost = ~expected.present[:sent]
    verdict.unless(not lost.any(), f"{_some(lost)} never reached the events topic")
    missing, extra = expected.present & ~scored, scored & ~expected.present
    verdict.say(
        "events scored",
        f"{int(scored.sum()):,} distinct, {int(missing.sum()):,} missing, {int(extra.sum()) + scores.alien:,} unknown; "
        f"{scores.total:,} scores, {scores.total - int(scored.sum()):,} of them repeated",
    )
    verdict.unless(not missing.any(), f"{_some(missing)} have no score")
    verdict.unless(not extra.any() and not scores.alien, f"{_some(extra)} and {scores.alien} others were never sent")
    wrong = scored & (expected.features != scores.features)
    # What is older than everything remembered is told from its repetition by nobody.
    remembered = workload.time > workload.sent_at - FORGOTTEN_MS / 2
    changed = np.zeros(scored.size, bool)
    changed[scores.changed] = True
    verdict.say(
        "features",
        f"{int(wrong.sum()):,} scores differ from the oracle's, {int(changed.sum()):,} from their repetition",
    )
    verdict.unless(not wrong.any(), f"{_some(wrong)} were scored with other customer features than the oracle's")
    changed &= remembered
    verdict.unless(not changed.any(), f"{_some(changed)} were scored twice with different features")


def judge_states(verdict: Verdict, expected: Expected, states: Mapping[tuple[str, bytes], bytes]) -> None:
    """Every entity's state is the oracle's, bit for bit."""
    counts = [f"{sum(entity == name for entity, _ in expected.states):,} {name}s" for name in FRAUD.entities]
    missing = expected.states.keys() - states.keys()
    extra = states.keys() - expected.states.keys()
    other = [key for key, state in expected.states.items() if key in states and states[key] != state]
    verdict.say(
        "entity states",
        f"{' and '.join(counts)}: {len(missing) + len(extra) + len(other):,} differences "
        f"({len(missing)} missing, {len(extra)} extra, {len(other)} of other bytes)",
    )
    for what, keys in (("missing from", missing), ("not to be in", extra), ("different in", other)):
        verdict.unless(not keys, f"{len(keys)} states are {what} Valkey: {sorted(keys)[:SHOWN]}")


def judge_learning(
    verdict: Verdict, expected: Expected, announced: ModelAnnouncement | None, key: bytes, history_labels: int
) -> None:
    """Every label that says something new became one example, no other did, and all models are those of an
    uninterrupted learner, bit for bit."""
    said, learnt = Counter(map(_said, expected.changes)), Counter(map(_said, expected.exampled))
    lost, extra = said - learnt, learnt - said
    verdict.say(
        "labels",
        f"{expected.labels:,} sent, {said.total():,} of them news, {lost.total():,} lost; "
        f"{expected.examples:,} examples, {expected.examples - learnt.total():,} of them repeated; "
        f"{history_labels:,} kept",
    )
    verdict.unless(not lost, f"{lost.total()} labels led to no example: {sorted(lost)[:SHOWN]}")
    verdict.unless(not extra, f"{extra.total()} examples of labels that say nothing new: {sorted(extra)[:SHOWN]}")
    sent = len(expected.labelled)
    verdict.unless(history_labels == sent, f"{history_labels} labels kept of {sent}")
    if announced is None:
        verdict.unless(expected.examples == 0, "no model was announced")
        return
    features = FRAUD.features
    ours = expected.lessons.learners
    found = {recipe: snapshot_of(announced, recipe) for recipe in ours}
    other = [
        recipe
        for recipe, learner in ours.items()
        if found[recipe].model_id != learner.model_id
        or weights(unseal(found[recipe], key, features.fingerprint, features.names).model) != weights(learner.model)
    ]
    verdict.say(
        "learner weights",
        f"{'DIFFERENT' if other else 'equal'} in all of {', '.join(one.model_id for one in ours.values())}",
    )
    verdict.unless(not other, f"not the uninterrupted learner's: {', '.join(found[one].model_id for one in other)}")


def judge_course(verdict: Verdict, expected: Expected, record: ModelAnnouncement | None, key: bytes) -> None:
    """From the last record for learners one goes on as the uninterrupted learner would, bit for bit."""
    features = FRAUD.features
    if record is None:
        verdict.unless(expected.examples == 0, "there is no record for a learner to go on from")
        return
    try:
        resumed = Lessons.resume(record, FRAUD.recipes, features.names, features.fingerprint, key)
    except SnapshotRefused as error:
        verdict.unless(False, f"no learner can go on: {error}")
        return
    ours, theirs = _content(expected.lessons), _content(resumed)
    other = [name for name, value in ours.items() if theirs[name] != value]
    verdict.say("learner's record", f"{'DIFFERENT' if other else 'equal'} in all of {', '.join(ours)}")
    verdict.unless(not other, f"a learner would go on with other {', '.join(other)}")


def _content(lessons: Lessons) -> dict[str, object]:
    """Return all that lessons have come to, by name."""
    learners = lessons.learners
    return {
        "offsets": lessons.offsets,
        "models": {one.model_id: weights(one.model) for one in learners.values()},
        "calibrators": [one.calibrator.to_array().tobytes() for one in learners.values()],
        "guards": [_guard(one.guard, recipe, lessons.names) for recipe, one in learners.items()],
        "labels seen": lessons.seen.to_bytes(),
        "scores judged": lessons.progressive.to_bytes(),
        "champion": lessons.seat,
    }


def _guard(guard: Guard, recipe: str, names: tuple[str, ...]) -> tuple[object, ...]:
    states = [weights(unpack(recipe, names, state).model) for state in (guard.good, guard.candidate) if state]
    return msgspec.structs.replace(guard, good=b"", candidate=b""), *states


def _said(label: Label) -> tuple[str, int, int]:
    return label.event_id, label.label_time, label.label


def judge_dead_letters(verdict: Verdict, expected: Expected, letters: list[Poisoned], repeated: int) -> None:
    """The DLQ holds exactly the poison, with its bytes and its reason."""
    sent, buried = set(expected.poison), set(letters)
    verdict.say(
        "dead letters",
        f"{len(buried):,} of {len(sent):,} poison ({kinds(expected.poison)}), {repeated:,} repeated; "
        f"{len(sent - buried):,} missing, {len(buried - sent):,} unexpected",
    )
    verdict.unless(not sent - buried, f"poison not buried as it should be: {_places(sent - buried)}")
    verdict.unless(not buried - sent, f"dead letters that were no such poison: {_places(buried - sent)}")


def judge_history(verdict: Verdict, scores: Scores, kept: "np.typing.NDArray[np.bool_]", alien: int) -> None:
    """The history has a row for each distinct score and no other."""
    scored = scores.at > 0
    verdict.say("history rows", f"{int(kept.sum()) + alien:,} for {int(scored.sum()):,} distinct scores")
    verdict.unless(not (scored & ~kept).any(), f"{_some(scored & ~kept)} have a score but no row")
    verdict.unless(
        not (kept & ~scored).any() and not alien, f"{_some(kept & ~scored)}, {alien} others: rows without score"
    )


def judge_ends(verdict: Verdict, ends: Sequence[End]) -> None:
    """Whatever ended unasked has met what may befall a sound process."""
    reasons = Counter(_kind(end.why) for end in ends)
    what = ", ".join(f"{count} × {reason}" for reason, count in reasons.most_common())
    verdict.say("ended by themselves", f"{len(ends)} ({what})" if ends else "none")
    for end in ends:
        verdict.unless(end.sound, str(end))


def _kind(why: str) -> str:
    """Return a last line without what differs from one process to the next."""
    words = why.partition(" ends: ")[2] or why
    return " ".join(word for word in words.split() if not any(c.isdigit() for c in word))[:60]


def _some(which: "np.typing.NDArray[np.bool_]") -> str:
    numbers = np.flatnonzero(which)
    return f"{numbers.size:,} events ({', '.join(f'e{number:08d}' for number in numbers[:SHOWN])} …)"


def _places(letters: set[Poisoned]) -> str:
    some = sorted(letters)[:SHOWN]
    return f"{len(letters)}: " + ", ".join(f"{one.place} {one.reason} {(one.value or b'')[:60]!r}" for one in some)
