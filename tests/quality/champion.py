"""`python -m tests.quality.champion SCORES.parquet`: which recipes would have been champion, and what the guard saw.

The file is a backtest's: events in time order with their labels and features. Every recipe learns each label a fixed
number of events late, scores are those of the time, and the judge and the guards go by them as they do live.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq

from schemas.events import AliasChange
from streams.models import guard
from streams.models.compiled import scorer
from streams.models.judge import GRID, Seat, judge
from streams.models.learner import Learner
from streams.models.progressive import Progressive
from streams.usecases import FRAUD

DELAY = 66 * GRID
"""Events from an event to its label: seven days of the handbook's transactions."""

SLICE = 4 * GRID


def main() -> int:
    """Run over the file and print what happened; the exit code is 2 where there are no scores."""
    parser = argparse.ArgumentParser(prog="python -m tests.quality.champion", description=__doc__)
    parser.add_argument("scores", type=Path, metavar="SCORES.parquet")
    parser.add_argument("--first", choices=FRAUD.recipes, default="logistic", help="the champion at the beginning")
    options = parser.parse_args()
    if not options.scores.exists():
        print(f"{options.scores}: there are no scores (make quality makes them)", file=sys.stderr)
        return 2
    names = FRAUD.features.names
    table = pq.read_table(options.scores, columns=["label", *names])
    rows = np.stack([table[name].to_numpy() for name in names], axis=1)
    labels = table["label"].to_numpy().astype(np.int8)
    learners = {recipe: Learner(recipe, names) for recipe in FRAUD.recipes}
    with _jumps() as jumps:
        for change in _course(rows, labels, learners, Seat(options.first)):
            print(f"after {change.judged:,} labels: {change.reason}")
    for learner in learners.values():
        print(f"{learner.model_id}: {learner.guard.trips} trips, {learner.examples_skipped} examples left out")
    print(f"the guards' largest jump: {max(jumps):.1f} standard deviations in {len(jumps):,} blocks")
    return 0


def _course(rows: np.ndarray, labels: np.ndarray, learners: dict[str, Learner], seat: Seat) -> Iterator[AliasChange]:
    progressive = Progressive(tuple(learners))
    said = np.empty((len(rows), len(learners)))
    for start in range(0, len(rows), SLICE):
        due = slice(max(0, start - DELAY), max(0, start + SLICE - DELAY))
        for begin in range(due.start, due.stop, GRID):
            progressive.add(said[begin : begin + GRID], labels[begin : begin + GRID])
            if verdict := judge(progressive, seat):
                seat = Seat(verdict.champion, seat.champion, progressive.seen)
                yield AliasChange("champion", verdict.champion, "learner", verdict.reason, 0, judged=progressive.seen)
        for at, learner in enumerate(learners.values()):
            learner.learn_rows(rows[due], labels[due], np.ones(due.stop - due.start))
            now = slice(start, start + SLICE)
            said[now, at] = learner.calibrator.apply(scorer(learner.model, learner.names)(rows[now]))


@contextmanager
def _jumps() -> Iterator[list[float]]:
    """Note how far each block's loss was from the usual one, in standard deviations."""
    jumps = [0.0]
    jumped = guard.Guard._jumped

    def noted(self: guard.Guard, loss: float) -> bool:
        if self.blocks >= guard.USUAL:
            jumps.append((loss - self.mean) / max(self.variance**0.5, 1e-12))
        return jumped(self, loss)

    with patch.object(guard.Guard, "_jumped", noted):
        yield jumps


if __name__ == "__main__":
    sys.exit(main())
