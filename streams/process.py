"""The door of every long-running process: its command line, settings, metrics endpoint, and exit code."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from streams.console import ends_quietly
from streams.metrics import Metrics, Probe
from streams.runtime import faults
from streams.runtime.batches import BatchApp
from streams.runtime.deployment import DeploymentRefused, refuse_misfit
from streams.runtime.health import Health
from streams.runtime.topics import KafkaUnavailable, TopicMismatch, create_topics
from streams.runtime.watchdog import Watchdog
from streams.runtime.worker import run
from streams.settings import Settings, SettingsError
from streams.usecases import USECASES, UseCase


class Worker(Protocol):
    """A process's app, what runs around it, and its health."""

    app: BatchApp
    health: Health

    def running(self) -> AbstractAsyncContextManager[None]:
        """Everything the app needs around it, from before its start until after its stop."""


Build = Callable[[UseCase, Settings, Metrics], Worker]


@ends_quietly
def serve(name: str, description: str, build: Build) -> int:
    """Run `python -m services.NAME USECASE` until it is stopped (0), fails (1) or finds a setting wrong (2)."""
    parser = argparse.ArgumentParser(prog=f"python -m services.{name}", description=description)
    parser.add_argument("usecase", choices=sorted(USECASES))
    usecase = USECASES[parser.parse_args().usecase]
    metrics = Metrics(name)
    try:
        settings = Settings.read(os.environ)
        usecase = usecase.deployed(settings.deployment, settings.publish)
        faults.arm(os.environ)
        worker = build(usecase, settings, metrics)
        show(metrics, settings, {"/livez": worker.health.livez, "/readyz": worker.health.readyz})
    except SettingsError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    topics = usecase.topics(settings.partitions)
    try:
        create_topics(settings.kafka, topics, settings.replication)
        refuse_misfit(settings.kafka, usecase, topics)
    except (KafkaUnavailable, TopicMismatch, DeploymentRefused) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    with Watchdog(f"worker {worker.app.conf.id}", worker.health, settings.stall_seconds):
        return run(worker.app, worker.running, topics, settings.tls)


def show(metrics: Metrics, settings: Settings, probes: Mapping[str, Probe] | None = None) -> None:
    """Serve a process's metrics and probes where the settings say, and say where; raises SettingsError."""
    try:
        url = metrics.serve(settings.metrics_host, settings.metrics_port, probes)
    except OSError as error:
        where = f"HEADRACE_METRICS_HOST {settings.metrics_host}, HEADRACE_METRICS_PORT {settings.metrics_port}"
        raise SettingsError(f"{where}: {error.strerror}") from None
    print(f"metrics: {url}", file=sys.stderr, flush=True)
