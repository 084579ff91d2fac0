"""`python -m tests.quality.recipes`: every recipe over the handbook's transactions, judged by the book's protocol.

Features are folded once; then each recipe learns every label 7 days late, and scores with the model of the hour, as
the backtest does. Heavy recipes, River's trees, take hundreds of times as long: they learn every fraud but one negative
in `ONE_IN`, at that weight, and score the test weeks only. The table says so of each.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from services.backtest.run import backtest
from streams.models.compiled import scorer
from streams.models.learner import Learner
from streams.models.recipes import RECIPES
from streams.stores import files
from streams.usecases import FRAUD
from tests.quality import book

Advance = Callable[[int], object]

DELAY, HOUR = 7 * book.DAY, book.HOUR
ONE_IN = 10


@dataclass(frozen=True)
class Row:
    """A recipe's means over the folds and its CPU in µs an event; `one_in` negatives were learnt."""

    recipe: str
    auc: float
    average_precision: float
    card_precision: float
    score_us: float
    learn_us: float
    one_in: int


def judge(known: book.Book, features: NDArray[np.float64], recipe: str, advance: Advance) -> Row:
    """Learn and score all transactions with `recipe`; `advance` is told of each hour's."""
    learner, one_in = Learner(recipe, FRAUD.features.names), ONE_IN if RECIPES[recipe].heavy else 1
    labels, weights = known.frauds.astype(np.int8), np.where(known.frauds == 1, 1.0, one_in)
    taken = (known.frauds == 1) | (known.ids % one_in == 0)
    asked = np.ones(known.ids.size, np.bool_)
    if one_in > 1:
        asked = np.isin(known.days, [day for start in book.VALIDATION_FOLDS for day in _test_days(start)])
    hours = known.times // HOUR
    begins = np.flatnonzero(np.diff(hours, prepend=-1, append=-1))
    due = np.searchsorted(known.times + DELAY, known.times // HOUR * HOUR)
    scores, clocks, learnt = np.zeros(known.ids.size), np.zeros(2), 0
    for begin, end in pairwise(begins.tolist()):
        rows = learnt + np.flatnonzero(taken[learnt : due[begin]])
        learnt = int(due[begin])
        clock = time.process_time()
        learner.learn_rows(features[rows], labels[rows], weights[rows])
        clocks[0] += time.process_time() - clock
        rows = begin + np.flatnonzero(asked[begin:end])
        clock = time.process_time()
        scores[rows] = learner.calibrator.apply(scorer(learner.model, learner.names)(features[rows]))
        clocks[1] += time.process_time() - clock
        advance(end - begin)
    folds = np.array([book.judge(known, scores, start) for start in book.VALIDATION_FOLDS]).mean(axis=0)
    learn_us, score_us = clocks * 1e6 / (taken[:learnt].sum(), asked.sum())
    auc, precision, cards = map(float, folds)
    return Row(recipe, auc, precision, cards, float(score_us), float(learn_us), one_in)


def _test_days(start: date) -> range:
    first = (start - book.FIRST_DAY).days + 14
    return range(first, first + 7)


def line(row: Row) -> str:
    """Return a line of the table."""
    note = f"  learns 1 negative in {row.one_in}" if row.one_in > 1 else ""
    return (
        f"{row.recipe:<12}{row.auc:>8.4f}{row.average_precision:>8.4f}{row.card_precision:>8.4f}"
        f"{row.score_us:>10.2f}{row.learn_us:>10.2f}{note}"
    )


def progress(what: str, known: book.Book) -> "tqdm[Any]":
    """Return a bar for a pass over all transactions, on a terminal only, that is gone when it has ended."""
    return tqdm(total=known.ids.size, unit=" events", desc=what, mininterval=0.5, leave=False, disable=None)


def main() -> int:
    """Print the table and write it to build/quality.json; the exit code is 2 where the data is absent."""
    parser = argparse.ArgumentParser(prog="python -m tests.quality.recipes", description=__doc__)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=f"of {', '.join(RECIPES)} (default: all)")
    chosen = parser.parse_args().recipes or list(RECIPES)
    if unknown := set(chosen) - set(RECIPES):
        parser.error(f"no recipe {', '.join(sorted(unknown))}")
    if refusal := book.refusal():
        print(refusal, file=sys.stderr)
        return 2
    known, events = book.load(), files.read(book.DATA, FRAUD, book.COLUMNS)
    with progress("features", known) as bar:
        features = backtest(events, DELAY, HOUR, bar.update).features
    print(f"{'':<12}{'AUC':>8}{'AP':>8}{'CP@100':>8}{'score µs':>10}{'learn µs':>10}   means of 4 folds; CPU an event")
    rows = []
    for recipe in chosen:
        with progress(recipe, known) as bar:
            rows.append(judge(known, features, recipe, bar.update))
        print(line(rows[-1]), flush=True)
    target = Path("build/quality.json")
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
