"""Keep the scores of a use case in Cassandra and join its labels with them; start as many as there are partitions."""

import sys

from services.history.worker import HistoryWorker
from streams.process import serve

if __name__ == "__main__":
    sys.exit(serve("history", __doc__ or "", HistoryWorker))
