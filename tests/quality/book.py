"""The handbook's data, its features and its protocol, as the book says them, in plain NumPy.

*Reproducible Machine Learning for Credit Card Fraud Detection* (Le Borgne, Siblini, Lebichot, Bontempi),
chapters 3 and 5. The data are not part of the project; HEADRACE_HANDBOOK names the file.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from streams.models.evaluation import card_precision

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("HEADRACE_HANDBOOK", ROOT.parent / "shared/data/handbook/transactions.parquet"))
COLUMNS = {
    "event_id": "TRANSACTION_ID",
    "event_time": "TX_DATETIME",
    "customer_id": "CUSTOMER_ID",
    "terminal_id": "TERMINAL_ID",
    "amount": "TX_AMOUNT",
    "label": "TX_FRAUD",
}
NEEDED = (*COLUMNS.values(), "TX_TIME_DAYS")

DAY, HOUR = 86_400_000, 3_600_000  # ms
DELAY = 7  # days
FIRST_DAY = date(2018, 4, 1)
VALIDATION_FOLDS = (date(2018, 6, 20), date(2018, 6, 27), date(2018, 7, 4), date(2018, 7, 11))
TOP_CARDS = 100


@dataclass(frozen=True)
class Book:
    """The transactions' columns, n rows in time order; times in epoch ms, amounts in cents (exact integers)."""

    ids: NDArray[np.int64]
    times: NDArray[np.int64]
    days: NDArray[np.int64]
    customers: NDArray[np.int64]
    terminals: NDArray[np.int64]
    cents: NDArray[np.int64]
    frauds: NDArray[np.int64]

    def head(self, rows: int) -> "Book":
        """Return the first `rows` transactions."""
        return Book(**{name: column[:rows] for name, column in vars(self).items()})


def refusal(path: Path = DATA) -> str:
    """Say why `path` does not have the transactions; nothing if it does."""
    what = f"the handbook's transactions are not at {path} (set HEADRACE_HANDBOOK)"
    try:
        found = pq.read_metadata(path)
    except FileNotFoundError:
        return what
    except (OSError, pa.ArrowInvalid):
        return f"{what}: it is no Parquet file"
    if missing := sorted({*NEEDED} - {*found.schema.to_arrow_schema().names}):
        return f"{what}: it has no column {', '.join(missing)}"
    return "" if found.num_rows else f"{what}: it has no rows"


def load(path: Path = DATA) -> Book:
    """Return the transactions in `path`."""
    table = pq.read_table(path)
    column = {name: table[name].to_numpy() for name in table.column_names}
    whole = {
        name: values.astype(np.int64) for name, values in column.items() if name.endswith(("_ID", "_DAYS", "FRAUD"))
    }
    return Book(
        ids=whole["TRANSACTION_ID"],
        times=column["TX_DATETIME"].astype("datetime64[ms]").astype(np.int64),
        days=whole["TX_TIME_DAYS"],
        customers=whole["CUSTOMER_ID"],
        terminals=whole["TERMINAL_ID"],
        cents=np.rint(column["TX_AMOUNT"] * 100).astype(np.int64),
        frauds=whole["TX_FRAUD"],
    )


def features(book: Book) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield each windowed and time feature by name, float64[n]."""
    weekday = (book.times // DAY + 3) % 7  # 1970-01-01 was a Thursday
    yield "is_weekend", (weekday >= 5).astype(np.float64)
    yield "is_night", (book.times % DAY // HOUR <= 6).astype(np.float64)
    for days in (1, 7, 30):
        count, cents = _window(book.customers, book.times, book.cents, days * DAY, 0)
        yield f"customer_tx_count_{days}d", count.astype(np.float64)
        yield f"customer_amount_mean_{days}d", cents / 100 / count
        count, frauds = _window(book.terminals, book.times, book.frauds, days * DAY, DELAY * DAY)
        yield f"terminal_label_count_{days}d", count.astype(np.float64)
        yield f"terminal_fraud_rate_{days}d", frauds / np.maximum(count, 1)


def tied(book: Book) -> NDArray[np.bool_]:
    """Return which rows share customer and second with another row; the book does not order them."""
    order = np.lexsort((book.times, book.customers))
    same = (np.diff(book.customers[order]) == 0) & (np.diff(book.times[order]) == 0)
    rows = np.zeros(book.ids.size, np.bool_)
    rows[order[1:][same]] = rows[order[:-1][same]] = True
    return rows


def _window(
    groups: NDArray[np.int64], times: NDArray[np.int64], values: NDArray[np.int64], length: int, delay: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return count and sum of `values` of the row's group in (t - delay - length, t - delay]."""
    room = 1 << 40  # ms, more than all times and windows span: no window reaches the group before
    places = groups * room + (times - times.min()) + room // 2
    order = np.argsort(places)
    totals = np.concatenate([[0], np.cumsum(values[order])])
    begin, end = (np.searchsorted(places[order], places - ago, side="right") for ago in (delay + length, delay))
    return end - begin, totals[end] - totals[begin]


def judge(book: Book, scores: NDArray[np.float64], train_from: date) -> tuple[float, float, float]:
    """Return AUC, average precision and card precision @ 100 of the fold whose training starts on `train_from`:
    7 days of training, 7 of delay, 7 of testing."""
    start = (train_from - FIRST_DAY).days
    test_days = range(start + 14, start + 21)
    rows = np.concatenate([_unknown(book, start, day) for day in test_days])
    labels = book.frauds[rows]
    auc, precision = roc_auc_score(labels, scores[rows]), average_precision_score(labels, scores[rows])
    cards = card_precision(book.days[rows], book.customers[rows], scores[rows], labels.astype(np.int8), TOP_CARDS)
    return float(auc), float(precision), cards


def _unknown(book: Book, start: int, day: int) -> NDArray[np.int64]:
    """Return the day's rows without the customers known to be compromised by then."""
    trained = (book.days >= start) & (book.days < start + 7)
    since = (book.days >= start + 7) & (book.days <= day - DELAY - 1)
    known = np.unique(book.customers[(trained | since) & (book.frauds == 1)])
    return np.flatnonzero((book.days == day) & ~np.isin(book.customers, known))
