"""Card fraud's declaration: the book's features by name, and the derived columns against datetime and statistics."""

from datetime import UTC, datetime
from statistics import fmean, pstdev

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import Transaction
from streams.features.pipeline import Events, Labels, Pipeline
from streams.features.spec import DAY, EVENT_TIME, Aggregate, Over, Window
from streams.usecases import FRAUD
from streams.usecases.fraud import amount_to_mean, amount_zscore, is_night, is_weekend

NAMES = FRAUD.features.names
NO_LABELS = Labels([], np.zeros(0, np.int64), {"customer": [], "terminal": []}, np.zeros(0))

millis = st.integers(0, 253_402_300_799_999)  # to the end of the year 9999
amounts = st.integers(1, 40_000).map(lambda quarters: quarters / 4)


def ms(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def at(times):
    return {EVENT_TIME: np.array(times, np.float64)}


def fold(times, amounts, customer=b"c", terminal=b"t"):
    """The features by name of transactions of one customer at one terminal, a column each."""
    n = len(times)
    keys = {"customer": [customer] * n, "terminal": [terminal] * n}
    ids = [b"%06d" % row for row in range(n)]
    events = Events(ids, np.array(times, np.int64), keys, np.array(amounts, np.float64).reshape(n, 1))
    return dict(zip(NAMES, Pipeline(FRAUD.features).fold(events, NO_LABELS).T, strict=True))


def test_the_books_features_are_there():
    """Chapter 3's fifteen inputs, by the names that are agreed."""
    book = ["amount", "is_weekend", "is_night"] + [
        f"{prefix}_{days}d"
        for prefix in ("customer_tx_count", "customer_amount_mean", "terminal_label_count", "terminal_fraud_rate")
        for days in (1, 7, 30)
    ]
    assert len(book) == 15
    assert set(book) <= set(NAMES)


@pytest.mark.parametrize(
    ("name", "over", "aggregate", "days"),
    [
        (f"{prefix}_{days}d", over, aggregate, days)
        for prefix, over, aggregate in [
            ("customer_tx_count", Over.EVENTS, Aggregate.COUNT),
            ("customer_amount_mean", Over.EVENTS, Aggregate.MEAN),
            ("terminal_label_count", Over.LABELS, Aggregate.COUNT),
            ("terminal_fraud_rate", Over.LABELS, Aggregate.MEAN),
        ]
        for days in (1, 7, 30)
    ],
)
def test_a_feature_is_what_its_name_says(name, over, aggregate, days):
    """The entity, what is looked at, the aggregate and the window all agree with the name."""
    [(stage, view, feature)] = [
        (stage, view, feature)
        for stage in FRAUD.features.stages
        for view in stage.views
        for feature in view.features
        if feature.name == name
    ]
    assert name.startswith(stage.entity)
    assert (view.over, feature.aggregate, feature.window) == (over, aggregate, Window(f"{days}d", days * DAY))


def test_every_windows_name_is_its_length():
    """10m is ten minutes, 30d thirty days, in every feature's name too."""
    units = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}
    for stage in FRAUD.features.stages:
        for view in stage.views:
            for feature in view.features:
                assert feature.window.length == int(feature.window.name[:-1]) * units[feature.window.name[-1]]
                assert feature.name.endswith(f"_{feature.window.name}")


@pytest.mark.parametrize(
    ("when", "weekend", "night"),
    [
        ("1970-01-01T00:00:00", 0, 1),
        ("2018-04-06T23:59:59.999", 0, 0),
        ("2018-04-07T00:00:00", 1, 1),
        ("2018-04-07T06:59:59.999", 1, 1),
        ("2018-04-07T07:00:00", 1, 0),
        ("2018-04-08T23:59:59.999", 1, 0),
        ("2018-04-09T00:00:00", 0, 1),
        ("2024-02-29T12:00:00", 0, 0),
    ],
)
def test_weekend_and_night_at_their_edges(when, weekend, night):
    """A weekend is Saturday 0:00 to Sunday 23:59:59.999, a night 0:00 to 6:59:59.999, in UTC."""
    assert is_weekend(at([ms(when)])).tolist() == [weekend]
    assert is_night(at([ms(when)])).tolist() == [night]


@settings(deadline=None)
@given(st.lists(millis, min_size=1, max_size=20))
def test_weekend_and_night_agree_with_the_calendar(times):
    """Any time there is, against datetime."""
    whens = [datetime.fromtimestamp(time // 1000, UTC) for time in times]
    assert is_weekend(at(times)).tolist() == [float(when.weekday() >= 5) for when in whens]
    assert is_night(at(times)).tolist() == [float(when.hour <= 6) for when in whens]


@settings(deadline=None)
@given(st.lists(amounts, min_size=1, max_size=20))
def test_the_amount_against_the_customers_habits(amounts):
    """Ratio to the mean and distance in standard deviations, the transaction itself included, against statistics."""
    features = fold(range(0, 1000 * len(amounts), 1000), amounts)
    for row, amount in enumerate(amounts):
        mean, spread = fmean(amounts[: row + 1]), pstdev(amounts[: row + 1])
        zscore = (amount - mean) / spread if spread else 0.0
        assert features["amount_to_mean"][row] == pytest.approx(amount / mean, rel=1e-9)
        assert features["amount_zscore"][row] == pytest.approx(zscore, rel=1e-9, abs=1e-9)


def test_the_last_days_against_those_before():
    """The mean of the days 8 to 30 before is what amount, largest and mean of the last 7 days are compared with.

    #  day 0    5    10        20   23   25 = t         (t - 7 d, t] holds the last three
    #      10   20   30        90   60   50
    """
    features = fold([day * DAY for day in (0, 5, 10, 20, 23, 25)], [10.0, 20.0, 30.0, 90.0, 60.0, 50.0])
    assert features["amount_to_past_mean"][-1] == pytest.approx(50 / 20)
    assert features["max_to_past_mean_7d"][-1] == pytest.approx(90 / 20)
    assert features["recent_to_past_mean_7d"][-1] == pytest.approx(75 / 20)
    # On day 5 there is no earlier week: all days are the past. The only other amount is that of day 0.
    assert features["amount_to_past_mean"][1] == pytest.approx(20 / 15)
    assert features["recent_to_past_mean_7d"][1] == pytest.approx(10 / 15)


def test_a_first_transaction_is_ordinary():
    """With no habit to compare with, the amount is its own mean and lies 0 deviations off."""
    features = fold([5], [12.5])
    for name in ("amount_to_past_mean", "max_to_past_mean_7d", "recent_to_past_mean_7d"):
        assert features[name][0] == 1.0
    assert (features["amount_to_mean"][0], features["amount_zscore"][0]) == (1.0, 0.0)


def test_a_mean_of_zero_and_no_spread_are_not_divided_by():
    """A purchase and its refund have a mean of 0, the same amount for ever has no spread; both stay finite."""
    refund = fold([1, 2], [10.0, -10.0])
    assert refund["amount_to_past_mean"][1] == refund["max_to_past_mean_7d"][1] == 1.0
    assert refund["amount_to_mean"][1] == 1.0
    assert refund["amount_zscore"][1] == -1.0
    assert fold(range(50), [1234.56] * 50)["amount_zscore"].tolist() == [0.0] * 50


def test_the_derived_columns_need_no_more_than_their_columns():
    """They are functions of columns, a whole batch at a time; zero means and spreads among others do not disturb."""
    columns = {
        "amount": np.array([3.0, 3.0, -3.0]),
        "customer_amount_mean_30d": np.array([2.0, 0.0, 1.0]),
        "customer_amount_std_30d": np.array([0.5, 0.0, 2.0]),
    }
    with np.errstate(all="raise"):
        assert amount_to_mean(columns).tolist() == [1.5, 1.0, -3.0]
        assert amount_zscore(columns).tolist() == [2.0, 0.0, -2.0]


def test_a_burst_is_seen_in_the_short_windows():
    """Five payments within ten minutes after a quiet month: the short counts rise, the long one knows the month.

    #  day 0                      day 29
    #  a                          b c d e f   a minute apart
    """
    times = [0, *(29 * DAY + minute * 60_000 for minute in range(5))]
    features = fold(times, [10.0] * 6)
    assert features["customer_tx_count_10m"].tolist() == [1, 1, 2, 3, 4, 5]
    assert features["customer_tx_count_30d"].tolist() == [1, 2, 3, 4, 5, 6]
    assert features["customer_seconds_since_tx_30d"].tolist() == [30 * 86_400, 29 * 86_400, 60, 60, 60, 60]


def test_the_declaration_fits_its_event():
    """Every field that the use case names is a field of its event."""
    fields = Transaction.__struct_fields__
    named = [FRAUD.event_id, FRAUD.event_time, *FRAUD.features.values, *(stage.key for stage in FRAUD.features.stages)]
    assert FRAUD.event is Transaction
    assert set(named) <= set(fields)
