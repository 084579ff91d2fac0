"""Keep the scores of a use case in Cassandra and join its labels with them; start as many as there are partitions."""

import sys

from services.history.worker import HistoryWorker
from streams.metrics import Metrics
from streams.process import serve
from streams.runtime.batches import BatchApp
from streams.runtime.worker import Resources
from streams.settings import Settings
from streams.usecases import UseCase


def build(usecase: UseCase, settings: Settings, metrics: Metrics) -> tuple[BatchApp, Resources]:
    """Return the process's app and what runs around it."""
    worker = HistoryWorker(usecase, settings, metrics)
    return worker.app, worker.running


if __name__ == "__main__":
    sys.exit(serve("history", __doc__ or "", build))
