"""`python -m tests.quality.costs [SCORES.parquet]`: what calibration and policy are worth on the handbook's data.

Calibration error and log loss of raw and calibrated scores; then what the decisions cost in money: the policy's, those
of the cheapest pair of thresholds on the score, chosen in hindsight, and approving everything. The first 28 days are
left out, in which models and calibrators have seen few labels.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.metrics import log_loss

from streams.decisions.policy import APPROVE, DECISIONS, DECLINE, REVIEW
from streams.models.evaluation import calibration_error
from streams.usecases.fraud import FRAUD
from tests.quality import book

DAY_MS, FIRST_DAYS = 86_400_000, 28
GRID = np.array([0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.1])
COLUMNS = ("event_time", "label", "score", "raw_score", "decision")


def costs(label: NDArray[np.int8], amount: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return what each decision on each event costs, a review finding its share of every fraud; float64[n] each."""
    given = FRAUD.policy.costs
    fraud = label * given.loss_share * np.maximum(amount, 0.0)
    return {
        APPROVE: fraud,
        REVIEW: given.review + (1 - given.review_finds) * fraud,
        DECLINE: (1 - label) * given.friction,
    }


def main() -> int:
    """Print both tables; the exit code is 2 where there are no scores."""
    parser = argparse.ArgumentParser(prog="python -m tests.quality.costs", description=__doc__)
    parser.add_argument("scores", nargs="?", type=Path, default=book.ROOT / "build" / "handbook.parquet")
    path = parser.parse_args().scores
    if not path.exists():
        print(f"{path}: there are no scores (make quality makes them)", file=sys.stderr)
        return 2
    table = pq.read_table(path, columns=[*COLUMNS, FRAUD.policy.costs.amount])
    times, label, score, raw, decision, amount = (column.to_numpy() for column in table.columns)
    late = times >= times.min() + FIRST_DAYS * DAY_MS
    label, score, raw, decision, amount = (column[late] for column in (label, score, raw, decision, amount))
    print(f"{late.sum():,} transactions, {label.sum():,} frauds of {amount[label == 1].sum():,.0f}")
    for name, said in ("raw", raw), ("calibrated", score):
        print(
            f"{name:<12} calibration error {calibration_error(said, label):.5f}  log loss {log_loss(label, said):.5f}"
        )
    each = costs(label, amount)
    chosen = {
        "policy": decision,
        "thresholds": _cheapest(score, each),
        "approve all": np.full(len(label), APPROVE),
    }
    for name, decided in chosen.items():
        total = sum(float(cost[decided == one].sum()) for one, cost in each.items())
        counts = ", ".join(f"{(decided == one).mean():.2%} {one}" for one in DECISIONS)
        print(f"{name:<12} costs {total:>10,.0f}  {counts}")
    return 0


def _cheapest(score: NDArray[np.float64], each: dict[str, NDArray[np.float64]]) -> NDArray[np.str_]:
    """Return the decisions by the pair of thresholds in GRID that costs least over these very events."""
    places = np.searchsorted(GRID, score, side="right")
    sums = {one: np.bincount(places, cost, len(GRID) + 1) for one, cost in each.items()}
    pairs = [(low, high) for low in range(len(GRID)) for high in range(low, len(GRID))]
    low, high = min(
        pairs,
        key=lambda pair: (
            sums[APPROVE][: pair[0] + 1].sum()
            + sums[REVIEW][pair[0] + 1 : pair[1] + 1].sum()
            + sums[DECLINE][pair[1] + 1 :].sum()
        ),
    )
    return np.array(DECISIONS)[np.searchsorted(GRID[[low, high]], score, side="right")]


if __name__ == "__main__":
    sys.exit(main())
