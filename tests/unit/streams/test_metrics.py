"""What a process shows: read as Prometheus reads it."""

import json
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families

from streams.metrics import LATENCY_BUCKETS, Answer, ManyHistogram, Metrics


def samples(registry: CollectorRegistry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by name and labels."""
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in registry.collect()
        for one in family.samples
    }


@given(st.lists(arrays(np.float64, st.integers(0, 5), elements=st.floats(0, 20) | st.sampled_from(LATENCY_BUCKETS))))
def test_many_at_once_count_as_one_by_one(batches: list[np.ndarray]) -> None:
    """A batch of values leaves the buckets, the count and the sum that Prometheus' own histogram would have."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    fast = ManyHistogram("h", "text", ours)
    slow = Histogram("h", "text", registry=theirs, buckets=LATENCY_BUCKETS)
    for batch in batches:
        fast.observe(batch)
        for value in batch.tolist():
            slow.observe(value)
    expected = {key: value for key, value in samples(theirs).items() if not key[0].endswith("_created")}
    assert samples(ours) == pytest.approx(expected)


def test_only_the_model_in_use_has_a_series() -> None:
    """A swap replaces the series; announcing the same model again keeps it."""
    metrics = Metrics("worker")
    for model_id, created_at in (("logistic@0", 1_000), ("logistic@5", 2_500), ("logistic@5", 2_500)):
        metrics.model(model_id, created_at)
        name = "headrace_model_created_timestamp_seconds"
        shown = {key: value for key, value in samples(metrics.registry).items() if key[0] == name}
        assert shown == {(name, (("model_id", model_id),)): created_at / 1000}


def test_processes_do_not_share_metrics() -> None:
    """Two processes' metrics in one interpreter (as in tests) stay apart."""
    one, other = Metrics("worker"), Metrics("history")
    one.events.labels("customer").inc(3)
    key = ("headrace_events_total", (("stage", "customer"),))
    assert samples(one.registry)[key] == 3
    assert key not in samples(other.registry)


def test_the_endpoint_serves_what_prometheus_parses() -> None:
    """Port 0 is any free port; the page has every metric that moved, in base units."""
    metrics = Metrics("worker")
    metrics.dlq.labels("invalid").inc()
    metrics.event_to_score_seconds.observe(np.array([0.004]))
    with urlopen(metrics.serve("127.0.0.1", 0), timeout=10) as page:
        families = {family.name: family for family in text_string_to_metric_families(page.read().decode())}
    assert families["headrace_dlq"].samples[0].labels == {"reason": "invalid"}
    assert {sample.value for sample in families["headrace_event_to_score_seconds"].samples} >= {0.004, 1.0}


def test_a_port_in_use_is_an_os_error() -> None:
    """The endpoint's port is taken: the door can say so."""
    port = int(urlsplit(Metrics("worker").serve("127.0.0.1", 0)).port or 0)
    with pytest.raises(OSError, match="in use"):
        Metrics("worker").serve("127.0.0.1", port)


def test_probes_are_answered_beside_the_metrics() -> None:
    """Yes is 200 and no is 503, either as JSON, as it is at the moment; the metrics stay where they were."""
    healthy = True
    url = Metrics("worker").serve("127.0.0.1", 0, {"/readyz": lambda: Answer(healthy, {"ready": healthy})})
    probe = url.removesuffix("metrics") + "readyz"
    with urlopen(probe, timeout=10) as page:
        assert (page.status, page.headers.get_content_type()) == (200, "application/json")
        assert json.load(page) == {"ready": True}
    healthy = False
    with pytest.raises(HTTPError) as caught:
        urlopen(probe, timeout=10)
    assert caught.value.code == 503
    assert json.load(caught.value) == {"ready": False}
    with urlopen(url, timeout=10) as page:
        assert b"headrace_" in page.read()


def test_a_probe_that_there_is_not_is_not_found() -> None:
    """Whoever probes a process that has no probes must not take its metrics for a yes."""
    url = Metrics("simulator").serve("127.0.0.1", 0)
    for path in "livez", "readyz", "metrics/livez":
        with pytest.raises(HTTPError) as caught:
            urlopen(url.removesuffix("metrics") + path, timeout=10)
        assert caught.value.code == 404
    with urlopen(url.removesuffix("metrics"), timeout=10) as page:
        assert b"headrace_" in page.read()


def test_the_endpoint_is_where_it_is_told_to_be() -> None:
    """The address is the setting's, and an IPv6 one has brackets in the URL; a host that there is not is told."""
    try:
        url = Metrics("worker").serve("::1", 0)
    except OSError:
        pytest.skip("no IPv6 here")
    assert url.startswith("http://[::1]:")
    with urlopen(url, timeout=10) as page:
        assert page.status == 200
