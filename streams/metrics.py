"""What a process shows of itself: the only module that knows Prometheus.

Base units, no entity ids in labels. One `Metrics` a process, passed in; `serve` opens the endpoint.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app, start_http_server
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LATENCY_BUCKETS = (
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.035, 0.05, 0.075,
    0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
BATCH_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Answer(NamedTuple):
    """What a probe is told: yes (200) or no (503), and why, as JSON."""

    yes: bool
    content: Mapping[str, Any]


Probe = Callable[[], Answer]


class ManyHistogram(Collector):
    """A histogram that takes a whole batch of values at once: one call a batch, not one an event."""

    def __init__(self, name: str, documentation: str, registry: CollectorRegistry) -> None:
        self._name, self._documentation = name, documentation
        self._bounds = np.array(LATENCY_BUCKETS)
        self._counts = np.zeros(len(LATENCY_BUCKETS) + 1, np.int64)
        self._sum = 0.0
        registry.register(self)

    def observe(self, values: NDArray[np.float64]) -> None:
        """Count `values`, in the base unit."""
        places = np.searchsorted(self._bounds, values)
        self._counts += np.bincount(places, minlength=self._counts.size)
        self._sum += float(values.sum())

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the histogram as Prometheus reads it."""
        bounds = [*map(str, LATENCY_BUCKETS), "+Inf"]
        counts = np.cumsum(self._counts).astype(float)
        family = HistogramMetricFamily(self._name, self._documentation)
        family.add_metric([], list(zip(bounds, counts, strict=True)), self._sum)
        yield family


class Metrics:
    """Every metric of a process; which of them move depends on what the process does."""

    def __init__(self, process: str) -> None:
        self.registry = registry = CollectorRegistry()
        self.process = process

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"headrace_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"headrace_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(f"headrace_{name}", text, labels, registry=registry, buckets=BATCH_BUCKETS)

        # Flow. `stage` is the entity of a feature stage, or the agent's verb: history, join, learner.
        self.events = counter("events", "Records processed", "stage")
        self.batches = counter("batches", "Fetched batches processed", "stage")
        self.batch_seconds = histogram("batch_seconds", "Time to process a fetched batch", "stage")
        self.event_to_score_seconds = ManyHistogram(
            "headrace_event_to_score_seconds", "From Kafka's taking an event in to its score", registry
        )
        self.lag = gauge("lag_records", "Records not yet processed", "topic", "partition")
        self.dlq = counter("dlq", "Records put aside as poison", "reason")
        self.duplicates = counter("duplicates", "Records seen before and dropped", "stage")
        self.late = counter("late", "Records too late for their windows", "stage")
        self.held = gauge("held_records", "Records held back until all watermarks have passed", "stage", "partition")
        self.waiting_labels = gauge("waiting_labels", "Labels whose event is not scored yet", "partition")
        self.labels = counter("labels", "Labels joined with their events, by what came of them", "outcome")
        self.feedback = counter("feedback_labels", "Labels that came over HTTP: accepted, or why not", "outcome")
        self.requests = counter("requests", "HTTP requests answered", "status")
        # Checkpoints.
        self.checkpoint_seconds = histogram("checkpoint_seconds", "Time to write a checkpoint", "stage")
        self.checkpoint_age_seconds = gauge("checkpoint_age_seconds", "Age of the oldest unwritten change", "stage")
        self.checkpoint_entities = counter("checkpoint_entities", "Entity states written", "stage")
        self.entities = gauge("entities", "Entities in memory", "stage")
        self.evicted = counter("evicted", "Entities that left the memory, to come back from the store", "stage")
        self.snapshot_entities = counter("snapshot_entities", "Entity states written to their snapshots", "stage")
        self.snapshot_seconds = histogram(
            "snapshot_seconds", "Time to bring a partition's snapshot up to date", "stage"
        )
        self.states_refused = counter("states_refused", "Damaged checkpoints and states that were set aside", "stage")
        # Models.
        self.model_created = gauge("model_created_timestamp_seconds", "When the model in use was made", "model_id")
        self.model_age_seconds = gauge("model_age_seconds", "Age of the model in use")
        self.models_refused = counter("models_refused", "Snapshots refused by a scorer")
        self.scores_not_finite = counter("scores_not_finite", "Scores that were no probabilities", "alias")
        for alias in ("champion", "challenger"):
            self.scores_not_finite.labels(alias)
        self.listed = gauge("listed_entities", "Entities on the block and allow lists")
        self.listings_refused = counter("listings_refused", "Records of the lists refused by a scorer")
        self.examples = counter("examples_learnt", "Examples learnt from")
        self.examples_refused = counter("examples_refused", "Examples refused", "reason")
        self.progressive = gauge("progressive", "Quality on delayed labels, sliding window", "measure", "recipe")
        self.champion = gauge("champion", "Whether a recipe is the champion (1) or a challenger (0)", "recipe")
        self.guard_trips = counter("guard_trips", "Times that learning was stopped and taken back", "recipe")
        self.learning_frozen = gauge("learning_frozen", "Examples that are still to be left out", "recipe")
        # Stores.
        self.store_retries = counter("store_retries", "Attempts repeated as a store was away", "store")
        self.store_up = gauge("store_up", "Whether a store that is needed answers (1) or not (0)", "store")
        # Health.
        self.ready = gauge("ready", "Whether /readyz says yes (1) or no (0)")
        self.stalled_seconds = gauge("stalled_seconds", "How long work has waited though no store is away")
        self._model_id: str | None = None

    def model(self, model_id: str, created_at_ms: int) -> None:
        """Show which model is in use; only the current one has a series."""
        if self._model_id is not None:
            self.model_created.remove(self._model_id)
        self._model_id = model_id
        self.model_created.labels(model_id).set(created_at_ms / 1000)

    def serve(self, host: str, port: int, probes: Mapping[str, Probe] | None = None) -> str:
        """Serve /metrics, and `probes` by their paths, on `host` (port 0: any free one); return the URL of /metrics.

        Raises OSError where that cannot be.
        """
        server, _thread = start_http_server(port, addr=host, registry=self.registry)
        server.set_app(_app(make_wsgi_app(self.registry), probes or {}))
        return f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}/metrics"


def _app(metrics: "WSGIApplication", probes: Mapping[str, Probe]) -> "WSGIApplication":
    def app(environment: "WSGIEnvironment", start: "StartResponse") -> Any:
        path = environment["PATH_INFO"]
        if path in ("/", "/metrics"):
            return metrics(environment, start)
        if path not in probes:  # a page of metrics would say yes to whoever probes
            start("404 Not Found", [("Content-Type", "text/plain")])
            return [b"there is only /metrics" + "".join(f", {one}" for one in probes).encode() + b"\n"]
        answer = probes[path]()
        start("200 OK" if answer.yes else "503 Service Unavailable", [("Content-Type", "application/json")])
        return [json.dumps(answer.content).encode() + b"\n"]

    return app
