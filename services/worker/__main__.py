"""Run the feature and scoring stages of a use case; start as many workers as there are partitions."""

import sys

from streams.app import StageWorker
from streams.metrics import Metrics
from streams.process import serve
from streams.runtime.batches import BatchApp
from streams.runtime.worker import Resources
from streams.settings import Settings
from streams.usecases import UseCase


def build(usecase: UseCase, settings: Settings, metrics: Metrics) -> tuple[BatchApp, Resources]:
    """Return the worker's app and what runs around it."""
    worker = StageWorker(usecase, settings, metrics)
    return worker.app, worker.running


if __name__ == "__main__":
    sys.exit(serve("worker", __doc__ or "", build))
