"""Learn from the labelled examples of a use case, in their order, and announce its models."""

import sys

from services.learner.worker import LearnerWorker
from streams.metrics import Metrics
from streams.process import serve
from streams.runtime.batches import BatchApp
from streams.runtime.worker import Resources
from streams.settings import Settings
from streams.usecases import UseCase


def build(usecase: UseCase, settings: Settings, metrics: Metrics) -> tuple[BatchApp, Resources]:
    """Return the learner's app and what runs around it."""
    worker = LearnerWorker(usecase, settings, metrics)
    return worker.app, worker.running


if __name__ == "__main__":
    sys.exit(serve("learner", __doc__ or "", build))
