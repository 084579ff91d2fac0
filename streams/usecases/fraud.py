"""Card fraud: transactions of customers at terminals, labels days late.

The windows of 1, 7 and 30 days, `is_weekend` and `is_night` are the features of *Reproducible Machine Learning
for Credit Card Fraud Detection*, chapter 3; with labels exactly 7 days late, the terminal's label windows are
the book's delayed risk windows. The others are what a fraud team adds first: bursts, and the amount against
the customer's own habits.
"""

import numpy as np

from schemas.events import Transaction
from streams.decisions.policy import REVIEW, Costs, Policy, Rule
from streams.features.spec import (
    DAY,
    EVENT_TIME,
    HOUR,
    MINUTE,
    Aggregate,
    Column,
    Columns,
    Derived,
    FeatureSet,
    Over,
    Stage,
    View,
    Window,
    windowed,
)
from streams.usecases.usecase import UseCase

MINUTES_10, HOUR_1 = Window("10m", 10 * MINUTE), Window("1h", HOUR)
DAY_1, DAY_7, DAY_30 = Window("1d", DAY), Window("7d", 7 * DAY), Window("30d", 30 * DAY)

THURSDAY = 3  # 1970-01-01, counting from Monday = 0


def is_weekend(columns: Columns) -> Column:
    """Return 1 on Saturday and Sunday (UTC)."""
    weekday = (columns[EVENT_TIME] // DAY + THURSDAY) % 7
    return (weekday >= 5).astype(np.float64)


def is_night(columns: Columns) -> Column:
    """Return 1 from midnight to 6:59 (UTC)."""
    return (columns[EVENT_TIME] % DAY // HOUR <= 6).astype(np.float64)


def amount_to_mean(columns: Columns) -> Column:
    """Return the amount as a multiple of the customer's mean over 30 days, 1 where that is 0."""
    mean = columns["customer_amount_mean_30d"]
    return np.divide(columns["amount"], mean, out=np.ones_like(mean), where=mean != 0)


def amount_log(columns: Columns) -> Column:
    """Return log(1 + amount), a refund counting as 0."""
    return np.log1p(np.maximum(columns["amount"], 0.0))


def amount_to_mean_log(columns: Columns) -> Column:
    """Return the logarithm of `amount_to_mean`, from a hundredth on."""
    return np.log(np.maximum(columns["amount_to_mean"], 0.01))


def amount_to_max(columns: Columns) -> Column:
    """Return the amount as a share of the customer's largest in 30 days, 1 where that is 0 or less."""
    largest = columns["customer_amount_max_30d"]
    return np.divide(columns["amount"], largest, out=np.ones_like(largest), where=largest > 0)


def amount_zscore(columns: Columns) -> Column:
    """Return how many of the customer's standard deviations the amount lies above the mean, 0 without spread."""
    spread = columns["customer_amount_std_30d"]
    distance = columns["amount"] - columns["customer_amount_mean_30d"]
    return np.divide(distance, spread, out=np.zeros_like(spread), where=spread > 1e-9)


def amount_to_past_mean(columns: Columns) -> Column:
    """Return the amount as a multiple of the customer's mean before the last 7 days."""
    return _to_past_mean(columns, columns["amount"])


def max_to_past_mean(columns: Columns) -> Column:
    """Return the customer's largest amount of the last 7 days as a multiple of the mean before them."""
    return _to_past_mean(columns, columns["customer_amount_max_7d"])


def recent_to_past_mean(columns: Columns) -> Column:
    """Return the mean of the customer's other amounts of the last 7 days as a multiple of the mean before them."""
    amount, count = columns["amount"], columns["customer_tx_count_7d"]
    others = columns["customer_amount_mean_7d"] * count - amount
    return _to_past_mean(columns, np.divide(others, count - 1, out=amount.copy(), where=count > 1))


def _to_past_mean(columns: Columns, value: Column) -> Column:
    """Divide by the mean amount of the days 8 to 30 before, where there is none by that of all 30; 1 where it is 0.

    A fraud that goes on for days raises the mean of these days, and would hide behind it.
    """
    count, mean = columns["customer_tx_count_30d"], columns["customer_amount_mean_30d"]
    past_count = count - columns["customer_tx_count_7d"]
    past_sum = mean * count - columns["customer_amount_mean_7d"] * columns["customer_tx_count_7d"]
    past = np.divide(past_sum, past_count, out=mean.copy(), where=past_count > 0)
    return np.divide(value, past, out=np.ones_like(past), where=past > 1e-9)


CUSTOMER = Stage(
    entity="customer",
    key="customer_id",
    views=(
        View(
            Over.EVENTS,
            "amount",
            (
                *windowed("customer_tx_count", Aggregate.COUNT, MINUTES_10, HOUR_1, DAY_1, DAY_7, DAY_30),
                *windowed("customer_amount_mean", Aggregate.MEAN, DAY_1, DAY_7, DAY_30),
                *windowed("customer_amount_sum", Aggregate.SUM, HOUR_1, DAY_1),
                *windowed("customer_amount_max", Aggregate.MAX, DAY_7, DAY_30),
                *windowed("customer_amount_std", Aggregate.STD, DAY_30),
                *windowed("customer_seconds_since_tx", Aggregate.SINCE, DAY_30),
            ),
        ),
    ),
)

TERMINAL = Stage(
    entity="terminal",
    key="terminal_id",
    views=(
        View(
            Over.EVENTS,
            "amount",
            (
                *windowed("terminal_tx_count", Aggregate.COUNT, HOUR_1, DAY_1, DAY_7, DAY_30),
                *windowed("terminal_amount_mean", Aggregate.MEAN, DAY_1, DAY_30),
            ),
        ),
        View(
            Over.LABELS,
            "",
            (
                *windowed("terminal_label_count", Aggregate.COUNT, DAY_1, DAY_7, DAY_30),
                *windowed("terminal_fraud_rate", Aggregate.MEAN, DAY_1, DAY_7, DAY_30),
                *windowed("terminal_seconds_since_fraud", Aggregate.SINCE_POSITIVE, DAY_30),
                *windowed("terminal_seconds_since_legitimate", Aggregate.SINCE_NEGATIVE, DAY_30),
            ),
        ),
    ),
)

FRAUD = UseCase(
    name="fraud",
    noun="transactions",
    event=Transaction,
    event_id="event_id",
    event_time="event_time",
    features=FeatureSet(
        values=("amount",),
        stages=(CUSTOMER, TERMINAL),
        derived=(
            Derived("is_weekend", is_weekend),
            Derived("is_night", is_night),
            Derived("amount_to_mean", amount_to_mean),
            Derived("amount_zscore", amount_zscore),
            Derived("amount_log", amount_log),
            Derived("amount_to_mean_log", amount_to_mean_log),
            Derived("amount_to_max", amount_to_max),
            Derived("amount_to_past_mean", amount_to_past_mean),
            Derived("max_to_past_mean_7d", max_to_past_mean),
            Derived("recent_to_past_mean_7d", recent_to_past_mean),
        ),
    ),
    recipes=("binned", "nimble", "logistic"),
    # In units of the amount: an analyst's quarter of an hour, and what is lost with a customer turned away for nothing.
    policy=Policy(
        Costs(amount="amount", loss_share=1.0, review=3.0, review_finds=0.9, friction=20.0),
        rules=(Rule("customer_tx_count_10m", 10, REVIEW),),
        prior=0.01,
    ),
    horizon_ms=7 * DAY,
)
