"""What the processes of the demo show of themselves, read from their Prometheus pages and added up."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf, isnan
from urllib.error import URLError
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

SCRAPE_SECONDS = 2.0
LATENCY = "headrace_event_to_score_seconds"


@dataclass(frozen=True)
class Reading:
    """The processes at one moment; `buckets` counts scored events by the upper bound of their latency (s)."""

    buckets: Mapping[float, float]
    lag: int
    model_id: str
    examples: int
    auc: float | None
    dlq: int

    @property
    def scored(self) -> int:
        """Events scored so far."""
        return int(max(self.buckets.values(), default=0))

    def since(self, before: "Reading") -> dict[float, float]:
        """Return the buckets of the events scored after the reading `before`."""
        return {bound: count - before.buckets.get(bound, 0) for bound, count in self.buckets.items()}


NOTHING = Reading({}, 0, "none", 0, None, 0)


def scrape(urls: Iterable[str]) -> Reading:
    """Return the reading of the pages at `urls`; a page that does not answer counts for nothing."""
    return reading([page for url in urls if (page := _page(url))])


def reading(pages: Iterable[str]) -> Reading:
    """Return what Prometheus pages say together."""
    sums: dict[str, float] = defaultdict(float)
    buckets: dict[float, float] = defaultdict(float)
    models: dict[str, float] = {}
    aucs: dict[str, float | None] = {}
    champion = ""
    for page in pages:
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                sums[sample.name] += sample.value
                if sample.name == f"{LATENCY}_bucket":
                    buckets[float(sample.labels["le"])] += sample.value
                elif sample.name == "headrace_model_created_timestamp_seconds":
                    models[sample.labels["model_id"]] = sample.value
                elif sample.name == "headrace_champion" and sample.value == 1:
                    champion = sample.labels["recipe"]
                elif sample.name == "headrace_progressive" and sample.labels["measure"] == "auc":
                    # NaN until both kinds of label have come.
                    aucs[sample.labels["recipe"]] = None if isnan(sample.value) else sample.value
    return Reading(
        buckets=dict(sorted(buckets.items())),
        lag=int(sums["headrace_lag_records"]),
        model_id=max(models, key=lambda name: models[name], default="none"),
        examples=int(sums["headrace_examples_learnt_total"]),
        auc=aucs.get(champion),
        dlq=int(sums["headrace_dlq_total"]),
    )


def quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """Return the latency that `share` of the events stay below, linear within its bucket; None without events.

    >>> quantile({0.001: 50, 0.003: 100, float("inf"): 100}, 0.75)
    0.002
    """
    total = max(buckets.values(), default=0)
    if total <= 0:
        return None
    rank, lower, below = share * total, 0.0, 0.0
    for bound, count in sorted(buckets.items()):
        if count >= rank and count > below:
            inside = (rank - below) / (count - below)
            return lower if bound == inf else lower + (bound - lower) * inside
        lower, below = bound, count
    return lower


def _page(url: str) -> str | None:
    try:
        with urlopen(url, timeout=SCRAPE_SECONDS) as answer:  # noqa: S310 - our own child's address
            page: str = answer.read().decode()
            return page
    except (URLError, OSError):
        # It is just ending, or just too busy; whoever watches the process will tell.
        return None
