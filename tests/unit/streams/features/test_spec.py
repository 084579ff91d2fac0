"""Declarations: what is refused, the order of names, and what the two fingerprints stand for."""

from dataclasses import replace

import pytest

from streams.features.spec import (
    HOUR,
    Aggregate,
    Derived,
    FeatureSet,
    Over,
    Stage,
    View,
    Window,
    Windowed,
    windowed,
)

MINUTE_WINDOW, HOUR_WINDOW, DAY_WINDOW = Window("1m", 60_000), Window("1h", HOUR), Window("1d", 24 * HOUR)
EVENTS = View(Over.EVENTS, "amount", windowed("n", Aggregate.COUNT, HOUR_WINDOW, DAY_WINDOW))
LABELS = View(Over.LABELS, "", windowed("rate", Aggregate.MEAN, DAY_WINDOW))
CARD = Stage("card", "card_id", (EVENTS,))
SHOP = Stage("shop", "shop_id", (replace(EVENTS, features=windowed("shop_n", Aggregate.COUNT, HOUR_WINDOW)), LABELS))
FEATURES = FeatureSet(("amount", "tip"), (CARD, SHOP), (Derived("twice", lambda columns: 2 * columns["amount"]),))


def with_view(view):
    return replace(CARD, views=(view,))


def test_names_are_in_the_order_of_the_vector():
    """Values, then each stage's features, then what is derived of them."""
    assert FEATURES.names == ("amount", "tip", "n_1h", "n_1d", "shop_n_1h", "rate_1d", "twice")
    assert SHOP.names == ("shop_n_1h", "rate_1d")


def test_windows_are_each_once_and_shortest_first():
    """However often and in whatever order features name them."""
    asked = (*windowed("a", Aggregate.SUM, DAY_WINDOW, MINUTE_WINDOW), *windowed("b", Aggregate.MAX, DAY_WINDOW))
    assert View(Over.EVENTS, "amount", asked).windows == (MINUTE_WINDOW, DAY_WINDOW)


def test_a_name_declared_twice_is_refused():
    """Two features of one name could not be told apart; the error names it."""
    with pytest.raises(ValueError, match="declared twice: n_1d, n_1h"):
        FeatureSet(("amount",), (CARD, replace(CARD, entity="shop")), ())


def test_labels_in_the_first_stage_are_refused():
    """Labels reach an entity by a hop, which the first has none of."""
    with pytest.raises(ValueError, match="first stage"):
        FeatureSet(("amount",), (SHOP,), ())


def test_a_view_over_an_unknown_value_is_refused():
    """What is aggregated must be a value of the event; the error names stage and value."""
    with pytest.raises(ValueError, match="card: 'price'"):
        FeatureSet(("amount",), (with_view(replace(EVENTS, value="price")),), ())


def test_what_is_kept_longest_is_known():
    """The longest window of any stage and the lateness on top."""
    assert FEATURES.longest_keep == 25 * HOUR


@pytest.mark.parametrize(
    "stage",
    [
        with_view(replace(EVENTS, features=windowed("other", Aggregate.STD, DAY_WINDOW))),
        with_view(replace(EVENTS, features=EVENTS.features[::-1])),
        with_view(replace(EVENTS, features=windowed("n", Aggregate.COUNT, MINUTE_WINDOW, DAY_WINDOW))),
        with_view(replace(EVENTS, features=windowed("n", Aggregate.COUNT, Window("24h", 24 * HOUR)))),
    ],
    ids=["other aggregates", "other order", "other short window", "other window name"],
)
def test_the_state_outlives_what_is_only_read_off_it(stage):
    """The same records kept as long: the same fingerprint."""
    assert stage.fingerprint(HOUR) == CARD.fingerprint(HOUR)


@pytest.mark.parametrize(
    ("stage", "lateness"),
    [
        (replace(CARD, entity="account"), HOUR),
        (replace(CARD, key="account_id"), HOUR),
        (with_view(replace(EVENTS, value="tip")), HOUR),
        (with_view(replace(EVENTS, over=Over.LABELS)), HOUR),
        (with_view(replace(EVENTS, features=windowed("n", Aggregate.COUNT, HOUR_WINDOW))), HOUR),
        (replace(CARD, views=(EVENTS, EVENTS)), HOUR),
        (replace(CARD, views=(EVENTS, LABELS)), HOUR),
        (CARD, HOUR + 1),
    ],
    ids=["entity", "key", "value", "kind", "longest window", "one view more", "labels too", "lateness"],
)
def test_another_state_has_another_fingerprint(stage, lateness):
    """Other records, another value of them, or kept for another time: another fingerprint."""
    assert stage.fingerprint(lateness) != CARD.fingerprint(HOUR)


def test_the_order_of_views_is_part_of_the_state():
    """The bytes hold the views one after the other."""
    swapped = replace(SHOP, views=SHOP.views[::-1])
    assert swapped.fingerprint(HOUR) != SHOP.fingerprint(HOUR)


@pytest.mark.parametrize(
    "other",
    [
        replace(FEATURES, values=("tip", "amount")),
        replace(FEATURES, stages=(CARD, replace(SHOP, views=(LABELS, SHOP.views[0])))),
        replace(FEATURES, stages=(with_view(replace(EVENTS, value="tip")), SHOP)),
        replace(FEATURES, stages=(with_view(replace(EVENTS, features=EVENTS.features[::-1])), SHOP)),
        replace(FEATURES, stages=(replace(CARD, key="account_id"), SHOP)),
        replace(FEATURES, derived=()),
        replace(FEATURES, derived=(replace(FEATURES.derived[0], version=2),)),
        replace(FEATURES, derived=(replace(FEATURES.derived[0], name="double"),)),
        replace(FEATURES, lateness=0),
        replace(
            FEATURES,
            stages=(with_view(replace(EVENTS, features=(Windowed("n_1h", Aggregate.SUM, HOUR_WINDOW),))), SHOP),
        ),
        replace(
            FEATURES,
            stages=(
                with_view(replace(EVENTS, features=windowed("n", Aggregate.COUNT, Window("1h", 60), DAY_WINDOW))),
                SHOP,
            ),
        ),
    ],
)
def test_another_meaning_has_another_fingerprint(other):
    """Whatever a model would see otherwise changes the feature set's fingerprint."""
    assert other.fingerprint != FEATURES.fingerprint


def test_the_fingerprint_is_the_same_everywhere():
    """It is written down here, since models and state outlive the process: a change of it is a decision.

    Raise it knowingly; every stored model and checkpoint of this declaration is then refused.
    """
    assert FEATURES.fingerprint == "a9fc78edb572623f"
    assert CARD.fingerprint(HOUR).hex() == "7c73c55027aa3c07"
    assert len(FEATURES.fingerprint) == 16
    assert replace(FEATURES, derived=(Derived("twice", abs),)).fingerprint == FEATURES.fingerprint
