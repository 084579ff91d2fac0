"""Half-way, fraud takes another pattern: who goes on learning is soon as good as before, and is made champion.

Two courses over the same payments, in each of which one of two like models learns no more from the drift on:

- the champion learns on: it recovers, and what is frozen never does;
- the frozen one is champion: the challenger that learns on, in shadow until then, is promoted by itself.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from streams.models.lessons import Lessons
from tests.scenarios.course import Course, freeze, lessons, run, twin
from tests.scenarios.payments import Payments, simulate
from tests.scenarios.picture import DRAWN, STEP, Line, Panel, draw

SECONDS, RATE = 300, 200.0
RECOVERED = 0.9
"""The share of the average precision before the drift that counts as recovered."""

RECOVERS_IN, PROMOTED_IN = 10_000, 10_000
"""Labels of payments after the drift with which the champion must have recovered, the challenger be promoted."""

WINDOW = 6_000
"""Payments that an average precision is taken over; about 165 are frauds."""


@dataclass(frozen=True)
class Drifted:
    """The two courses: `adapting` with the learning `recipe` as champion, `replacing` with its frozen twin."""

    payments: Payments
    recipe: str
    twin: str
    adapting: Course
    replacing: Course

    @cached_property
    def before(self) -> float:
        """The average precision of the last 2 * WINDOW payments before the drift."""
        return self.adapting.average_precision(
            self.adapting.served, slice(self.payments.drift - 2 * WINDOW, self.payments.drift)
        )

    def after(self, recipe: str, labels: int) -> float:
        """Return the average precision of the WINDOW payments from when so many labels after the drift were learnt."""
        start = int(np.searchsorted(self.adapting.learnt, self.payments.drift + labels))
        return self.adapting.average_precision(self.adapting.scores[recipe], slice(start, start + WINDOW))

    @cached_property
    def recovered_in(self) -> int | None:
        """How many labels after the drift the newest DRAWN payments had been as well scored as RECOVERED asks, None
        if they never were."""
        drift, n = self.payments.drift, len(self.payments)
        for stop in range(drift + DRAWN, n + 1, STEP):
            precision = self.adapting.average_precision(self.adapting.served, slice(stop - DRAWN, stop))
            if precision >= RECOVERED * self.before:
                return int(self.adapting.learnt[stop - 1]) - drift
        return None

    @cached_property
    def promoted_in(self) -> int | None:
        """How many labels after the drift the challenger was promoted, None if it never was."""
        return next((change.judged - self.payments.drift for change in self.replacing.changes), None)

    def broken(self) -> list[str]:
        """Return which promises were not kept."""
        promises = {
            f"recovered within {RECOVERS_IN} labels": self.after(self.recipe, RECOVERS_IN) >= RECOVERED * self.before,
            "what is frozen is not half as good as before": (
                max(self.after(self.twin, labels) for labels in (0, RECOVERS_IN)) < self.before / 2
            ),
            "a champion that adapts stays champion": not self.adapting.changes,
            f"the challenger is promoted within {PROMOTED_IN} labels, once, by the learner": (
                [(change.recipe, change.by) for change in self.replacing.changes] == [(self.recipe, "learner")]
                and 0 < (self.promoted_in or 0) <= PROMOTED_IN
            ),
            "every score is a probability": all(
                bool(((course.served >= 0) & (course.served <= 1)).all()) for course in (self.adapting, self.replacing)
            ),
        }
        return [promise for promise, kept in promises.items() if not kept]

    def told(self) -> str:
        """Return what happened, in a few lines."""
        last = self.after(self.recipe, RECOVERS_IN)
        reason = self.replacing.changes[0].reason if self.replacing.changes else "no promotion"
        return "\n".join(
            [
                f"drift at payment {self.payments.drift:,} of {len(self.payments):,}; {self.recipe}, and a frozen twin",
                f"average precision before it {self.before:.3f}",
                f"the learning champion: within 10 % of before after {self.recovered_in} labels, "
                f"{last:.3f} from {RECOVERS_IN:,} on",
                f"the frozen one: {self.after(self.twin, RECOVERS_IN):.3f}",
                f"promoted after {self.promoted_in} labels: {reason}",
            ]
        )

    def picture(self) -> bytes:
        """Draw the average precision over the payments of both courses."""
        adapting = Panel(
            "The champion learns on; a twin that is frozen at the drift does not",
            [
                Line("champion, learning on", self.adapting.served, "champion"),
                Line("twin, frozen", self.adapting.scores[self.twin], "other"),
            ],
            self._marks(self.adapting, "within 10 % of before", self.recovered_in),
        )
        replacing = Panel(
            "The champion is frozen; its challenger learns on in shadow, and is promoted",
            [
                Line("champion of the time", self.replacing.served, "champion"),
                Line("the frozen one", self.replacing.scores[self.twin], "other"),
            ],
            self._marks(self.replacing, "promoted", self.promoted_in),
        )
        return draw(self.payments, [adapting, replacing], {"90 % of before": RECOVERED * self.before})

    def _marks(self, course: Course, what: str, labels: int | None) -> dict[str, int]:
        marks = {"fraud takes another pattern": self.payments.drift}
        if labels is not None:
            marks[f"{what}: {labels:,} labels later"] = int(
                np.searchsorted(course.learnt, self.payments.drift + labels)
            )
        return marks


def run_drift(seed: int, recipe: str) -> Drifted:
    """Run both courses of `recipe`, the drift coming half-way."""
    drift = SECONDS // 2
    payments = simulate(seed, SECONDS, RATE, drift_second=drift)
    with twin(recipe) as frozen:
        adapting = _run(payments, lessons(recipe, frozen), frozen, drift)
        replacing = _run(payments, lessons(frozen, recipe), frozen, drift)
    return Drifted(payments, recipe, frozen, adapting, replacing)


def _run(payments: Payments, taught: Lessons, frozen: str, drift: int) -> Course:
    def at_the_drift(second: int) -> None:
        if second == drift:
            freeze(taught.learners[frozen])

    return run(payments, taught, operator=at_the_drift)
