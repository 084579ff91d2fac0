"""Learn from the labelled examples of a use case, in their order, and announce its models."""

import sys

from services.learner.worker import LearnerWorker
from streams.process import serve

if __name__ == "__main__":
    sys.exit(serve("learner", __doc__ or "", LearnerWorker))
