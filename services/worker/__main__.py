"""`python -m services.worker USECASE`: run the stages of a use case; start as many as there are partitions."""

import argparse
import os
import sys

from streams.app import StageWorker
from streams.metrics import Metrics
from streams.runtime.worker import run
from streams.settings import Settings, SettingsError
from streams.usecases import USECASES


def main() -> int:
    """Run until stopped (0), until something fails (1), or say which setting is wrong (2)."""
    parser = argparse.ArgumentParser(prog="python -m services.worker", description=__doc__)
    parser.add_argument("usecase", choices=sorted(USECASES))
    usecase = USECASES[parser.parse_args().usecase]
    try:
        settings = Settings.read(os.environ)
        settings.signing_key()
    except SettingsError as error:
        print(f"worker: {error}", file=sys.stderr)
        return 2
    metrics = Metrics("worker")
    try:
        port = metrics.serve(settings.metrics_port)
    except OSError as error:
        print(f"worker: HEADRACE_METRICS_PORT {settings.metrics_port}: {error}", file=sys.stderr)
        return 2
    print(f"metrics: http://127.0.0.1:{port}/metrics", file=sys.stderr, flush=True)
    worker = StageWorker(usecase, settings, metrics)
    return run(worker.app, worker.running)


if __name__ == "__main__":
    sys.exit(main())
