"""A changed pattern of fraud: what learns recovers and is promoted, what is frozen is not good any more."""

from streams.usecases import FRAUD
from tests.scenarios.drift import PROMOTED_IN, RECOVERS_IN, run_drift

RECIPE = FRAUD.recipes[0]


def test_the_one_that_adapts_recovers_and_takes_over() -> None:
    """Every promise of the scenario, and what it says of itself, holds; the picture is one."""
    drifted = run_drift(1, RECIPE)
    assert drifted.broken() == []
    assert drifted.recovered_in is not None
    assert drifted.recovered_in <= RECOVERS_IN
    assert drifted.promoted_in is not None
    assert drifted.promoted_in <= PROMOTED_IN
    # Up to the drift the two are the same.
    before = slice(0, drifted.payments.drift)
    assert (drifted.adapting.scores[RECIPE][before] == drifted.adapting.scores[drifted.twin][before]).all()
    assert drifted.picture().startswith(b"\x89PNG")
