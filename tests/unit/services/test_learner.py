"""What a learner shows: the examples of the partition it owns, nothing of one that it has lost."""

import asyncio

from services.learner.worker import LearnerWorker
from streams.metrics import Metrics
from streams.settings import Settings
from streams.usecases import FRAUD


def test_a_learner_that_stands_by_shows_no_lag() -> None:
    """Another process has the partition now, and shows its lag."""

    async def scenario() -> Metrics:
        metrics = Metrics("learner")
        worker = LearnerWorker(FRAUD, Settings(model_key=b"k" * 32), metrics)
        metrics.lag.labels("fraud.examples", "0").set(5)
        worker._show()
        return metrics

    shown = [one for family in asyncio.run(scenario()).lag.collect() for one in family.samples]
    assert shown == []
