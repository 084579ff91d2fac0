"""`python -m tests.quality.handbook SCORES.parquet`: a backtest's file against the book, features and quality."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tests.quality import book

BARS = {"AUC": 0.885, "AP": 0.74, "CP@100": 0.288}
"""What the mean over the validation folds must reach; the book's best, retrained for every fold: .883, .708, .289."""

TOLERANCE = 1e-9  # of means and rates, relative above 1; counts are equal


def differing(known: book.Book, rows: pa.Table) -> list[str]:
    """Return a line for each of the book's features that is another in `rows`, which are in the order of `known`."""
    untied = ~book.tied(known)
    lines = []
    for name, expected in book.features(known):
        actual = rows[name].to_numpy()
        allowed = TOLERANCE * np.maximum(1.0, np.abs(expected)) if "mean" in name or "rate" in name else 0.0
        wrong = np.flatnonzero((np.abs(actual - expected) > allowed) & untied)
        if wrong.size:
            at = wrong[0]
            lines.append(
                f"{name}: {wrong.size} rows, first event {known.ids[at]}: {actual[at]!r}, book {expected[at]!r}"
            )
    return lines


def fold_table(known: book.Book, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return AUC, average precision and card precision of the validation folds, float64[folds, 3]."""
    return np.array([book.judge(known, scores, start) for start in book.VALIDATION_FOLDS])


def judge(scores: Path) -> int:
    """Print the folds of a backtest's file and what is wrong; return 1 if anything is."""
    known, rows = book.load(), pq.read_table(scores)
    if rows["event_id"].to_pylist() != list(map(str, known.ids.tolist())):
        print("the file does not have the handbook's transactions, one row each in time order", file=sys.stderr)
        return 1
    print(f"{'training from':<14}" + "".join(f"{name:>8}" for name in BARS))
    folds = fold_table(known, rows["score"].to_numpy())
    for start, fold in zip(book.VALIDATION_FOLDS, folds, strict=True):
        print(f"{start!s:<14}" + "".join(f"{value:>8.4f}" for value in fold))
    means = folds.mean(axis=0)
    print(f"{'mean':<14}" + "".join(f"{value:>8.4f}" for value in means))
    wrong = differing(known, rows)
    if (rows["label"].to_numpy() != known.frauds).any() or (rows["event_time"].to_numpy() != known.times).any():
        wrong.append("labels or event times are not the file's")
    wrong += [
        f"{name}: the mean {mean:.4f} is below {bar}"
        for (name, bar), mean in zip(BARS.items(), means, strict=True)
        if mean < bar
    ]
    print("\n".join(wrong) if wrong else "the book's 14 features are equal, the bars are reached")
    return 1 if wrong else 0


def main() -> int:
    """Judge the file that is named; the exit code is 1 if anything is wrong, 2 where the data is absent."""
    parser = argparse.ArgumentParser(prog="python -m tests.quality.handbook", description=__doc__)
    parser.add_argument("scores", type=Path, metavar="SCORES.parquet")
    options = parser.parse_args()
    if refusal := book.refusal():
        print(refusal, file=sys.stderr)
        return 2
    if not options.scores.exists():
        print(f"{options.scores}: there are no scores (make quality makes them)", file=sys.stderr)
        return 2
    return judge(options.scores)


if __name__ == "__main__":
    sys.exit(main())
