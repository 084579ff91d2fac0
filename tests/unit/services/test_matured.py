"""The matured process's own settings."""

from dataclasses import replace

import pytest

from services.matured.worker import horizon_ms
from streams.settings import Settings, SettingsError
from streams.usecases import FRAUD

WEEK_MS = 604_800_000


def test_the_horizon_is_the_use_cases_unless_a_setting_says_otherwise() -> None:
    """Fraud waits for a week; a demo cannot."""
    assert horizon_ms(FRAUD, Settings()) == WEEK_MS
    assert horizon_ms(FRAUD, Settings(label_horizon_seconds=0.25)) == 250


@pytest.mark.parametrize("seconds", [30 * 86_400.0, 1e12, 0.0001])
def test_a_horizon_that_kafka_does_not_reach_back_to_is_refused(seconds: float) -> None:
    """What is not kept for so long would be gone unlabelled: the setting is named, at the start."""
    with pytest.raises(SettingsError, match="HEADRACE_LABEL_HORIZON_SECONDS"):
        horizon_ms(FRAUD, Settings(label_horizon_seconds=seconds))


@pytest.mark.parametrize("wrong", [{"horizon_ms": 0}, {"negatives_kept": 0.0}, {"negatives_kept": 1.5}])
def test_a_use_case_says_what_can_be(wrong: dict[str, float]) -> None:
    """No horizon and no share of negatives beyond all or none."""
    with pytest.raises(ValueError, match="negatives_kept"):
        replace(FRAUD, **wrong)  # type: ignore[arg-type]
