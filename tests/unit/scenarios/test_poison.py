"""Bad examples: the guard acts and says so, scores stay probabilities, and a rollback brings the quality back."""

from streams.usecases import FRAUD
from tests.scenarios.poison import run_poison

RECIPE = FRAUD.recipes[0]


def test_bad_examples_do_not_last() -> None:
    """Every promise of the scenario holds; without the guard half of the quality would be gone."""
    poisoned = run_poison(1, RECIPE)
    assert poisoned.broken() == []
    assert poisoned.bare.lessons.seat.pinned
    assert poisoned.picture().startswith(b"\x89PNG")
