"""Run the feature and scoring stages of a use case; start as many workers as there are partitions."""

import sys

from streams.app import StageWorker
from streams.process import serve

if __name__ == "__main__":
    sys.exit(serve("worker", __doc__ or "", StageWorker))
