"""The progressive metrics are scikit-learn's, over the newest scores only."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from streams.models.progressive import Progressive

# Few distinct scores, so that ties are common.
pairs = st.lists(
    st.tuples(st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1)), st.sampled_from([0, 1])),
    min_size=2,
    max_size=60,
).filter(lambda given_pairs: len({label for _, label in given_pairs}) == 2)


@given(pairs=pairs)
def test_equals_scikit_learn(pairs: list[tuple[float, int]]) -> None:
    """AUC, average precision and log loss are the ones everybody else computes."""
    metrics = Progressive(window=60)
    for score, label in pairs:
        metrics.add(score, label)
    scores, labels = (np.array(column) for column in zip(*pairs, strict=True))
    assert metrics.auc() == pytest.approx(roc_auc_score(labels, scores))
    assert metrics.average_precision() == pytest.approx(average_precision_score(labels, scores))
    clipped = np.clip(scores, 1e-15, 1 - 1e-15)
    assert metrics.log_loss() == pytest.approx(log_loss(labels, clipped), rel=1e-4)


def test_only_the_window_counts() -> None:
    """What is older than the window is forgotten."""
    metrics, fresh = Progressive(window=4), Progressive(window=4)
    for score in (0.9, 0.8, 0.7):
        metrics.add(score, 0)
    for score, label in [(0.1, 0), (0.4, 0), (0.35, 1), (0.8, 1)]:
        metrics.add(score, label)
        fresh.add(score, label)
    assert metrics.auc() == fresh.auc() == 0.75
    assert metrics.log_loss() == pytest.approx(fresh.log_loss())


def test_nothing_to_say_is_nan() -> None:
    """Without both classes there is no AUC, and without scores no loss."""
    metrics = Progressive()
    assert math.isnan(metrics.auc())
    assert math.isnan(metrics.average_precision())
    assert math.isnan(metrics.log_loss())
    metrics.add(0.2, 0)
    assert math.isnan(metrics.auc())
    assert metrics.log_loss() == pytest.approx(-math.log(0.8))
