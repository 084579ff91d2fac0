"""Assume of every event of a use case that it is negative, one horizon later; the join drops it where a label came.

Not beside `services.replay`, which sends every label itself, with promises that an assumption would break.
"""

import sys

from services.matured.worker import MaturedWorker
from streams.process import serve

if __name__ == "__main__":
    sys.exit(serve("matured", __doc__ or "", MaturedWorker))
