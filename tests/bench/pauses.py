"""How long events may have to wait for the memory of the entities to grow.

    python -m tests.bench.pauses [CUSTOMERS [DAYS]]

Folds the transactions of so many days into the first stage of fraud, 2,000 at a time, and prints how long a fold took
(ms): what is beyond the usual is a pause of everything that the worker does.
"""

import sys
import time
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from streams.features.spec import Over
from streams.features.table import EntityTable
from streams.usecases.fraud import FRAUD
from tests.bench.workload import DAILY, DAY_MS

BATCH = 2_000


def folds(customers: int, days: int) -> Iterator[float]:
    """Yield how long each fold took, in ms."""
    table, rng = EntityTable(FRAUD.features.stages[0], FRAUD.features), np.random.default_rng(1)
    kinds = np.full(BATCH, Over.EVENTS, np.int8)
    step = DAY_MS * BATCH / (customers * DAILY)
    for number in tqdm(range(round(days * DAY_MS / step)), "folding", unit=" batches", leave=False):
        keys = [b"customer%07d" % row for row in rng.integers(0, customers, BATCH)]
        ids = [b"%d" % (number * BATCH + row) for row in range(BATCH)]
        times = np.sort(rng.uniform(number * step, (number + 1) * step, BATCH)).astype(np.int64)
        values = rng.uniform(0, 100, (BATCH, len(FRAUD.features.values) + 1))
        started = time.perf_counter()
        table.fold_once(ids, keys, kinds, times, values)
        yield (time.perf_counter() - started) * 1000


def main(customers: int = 100_000, days: int = 45) -> None:
    """Print the percentiles of `folds`."""
    taken = np.fromiter(folds(customers, days), np.float64)
    p50, p99, p999 = np.percentile(taken, [50, 99, 99.9])
    print(
        f"{taken.size} folds of {BATCH} events: p50 {p50:.1f}  p99 {p99:.1f}  p999 {p999:.1f}  max {taken.max():.1f} ms"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
