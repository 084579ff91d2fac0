"""The demo's eyes: what it reads off the processes' pages, and what it prints of it."""

from math import inf
from typing import Any

import numpy as np
import pytest
from prometheus_client import generate_latest

from services.demo import __main__ as door
from services.demo.report import line, summary
from services.demo.watch import NOTHING, Reading, quantile, reading
from streams.metrics import Metrics


def page(latencies: list[float], lag: int = 0, model: str = "", **measures: float) -> str:
    """Return the page of a process that scored events with these latencies (s)."""
    metrics = Metrics("test")
    if latencies:
        metrics.event_to_score_seconds.observe(np.array(latencies))
    metrics.lag.labels("topic", "0").set(lag)
    metrics.lag.labels("topic", "1").set(lag)
    metrics.dlq.labels("null").inc(1)
    if model:
        metrics.model(model, 5)
    metrics.examples.inc(measures.pop("examples", 0))
    for name, value in measures.items():
        metrics.progressive.labels(name, "logistic").set(value)
        metrics.progressive.labels(name, "forest").set(0.5)
        metrics.champion.labels("logistic").set(1)
        metrics.champion.labels("forest").set(0)
    return generate_latest(metrics.registry).decode()


def test_pages_are_added_up() -> None:
    """Counts of two workers add up; model and examples are those of whoever has them, the AUC is the champion's."""
    worker = page([0.0015, 0.004], lag=3, model="logistic@7")
    learner = page([], examples=7, auc=0.9, log_loss=0.1)
    now = reading([worker, worker, learner])
    assert (now.scored, now.lag, now.model_id, now.examples, now.auc, now.dlq) == (4, 12, "logistic@7", 7, 0.9, 3)
    assert now.buckets[0.001] == 0
    assert now.buckets[0.002] == 2
    assert now.buckets[inf] == 4


def test_an_unknown_auc_is_none() -> None:
    """As long as one kind of label is missing there is no AUC."""
    assert reading([page([], auc=float("nan"))]).auc is None


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_quantiles_are_those_of_the_values(share: float) -> None:
    """A quantile of buckets lies within the bucket that the values' own quantile is in."""
    values = np.random.default_rng(1).lognormal(-5.5, 0.7, 10_000)
    buckets = reading([page(values.tolist())]).buckets
    found = quantile(buckets, share)
    assert found is not None
    exact = float(np.quantile(values, share))
    bounds = [0.0, *buckets]
    place = next(i for i, bound in enumerate(bounds) if bound >= exact)
    assert bounds[place - 1] <= found <= bounds[place]


def test_quantiles_of_nothing() -> None:
    """Without events there is no latency."""
    assert quantile({}, 0.5) is None
    assert quantile({0.1: 0, inf: 0}, 0.5) is None


def test_a_line_speaks_of_the_last_second() -> None:
    """Rate and latency are of the events since the line before, not of all."""
    before = reading([page([4.0] * 100)])
    now = reading([page([4.0] * 100 + [0.0015] * 50, model="logistic@9")])
    said = line(now, before, elapsed=12, since=0.5)
    assert "100 events/s" in said
    assert "p50   1.5 ms  p99   2.0 ms" in said
    assert "model logistic@9" in said
    assert "AUC –" in said
    assert "p50    –" in line(now, now, 13, 1)


def test_the_summary_counts_losses() -> None:
    """What was neither scored nor put aside is lost; a score given twice is no gain."""
    last = Reading({0.002: 10, inf: 10}, 0, "logistic@5", 5, 0.875, 1)
    assert "10 sent, 8 scored, 1 in the DLQ, 1 lost" in summary(last, {"sent": 10, "scored": 8, "dead": 1}, 60)
    assert "0 lost" in summary(NOTHING, {"sent": 10, "scored": 12, "dead": 0}, 60)
    assert "5 examples learnt, model logistic@5, progressive AUC 0.875" in summary(
        last, {"sent": 1, "scored": 1, "dead": 0}, 60
    )


@pytest.mark.parametrize("option", [["--duration", "0"], ["--rate", "x"], ["--duration", "inf"]])
def test_a_wrong_option_is_named(capsys: Any, option: list[str]) -> None:
    """A wrong option ends with what it must be."""
    with pytest.raises(SystemExit) as error:
        door.main(["fraud", *option])
    assert error.value.code == 2
    assert "must be a number above 0" in capsys.readouterr().err


def test_a_wrong_setting_is_named(capsys: Any, monkeypatch: Any) -> None:
    """A wrong setting ends before anything is started."""
    monkeypatch.setenv("HEADRACE_PARTITIONS", "none")
    assert door.main(["fraud"]) == 2
    assert capsys.readouterr().err.startswith("error: HEADRACE_PARTITIONS: ")
