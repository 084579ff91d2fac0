"""What a dashboard is made of: queries, panels that show them, rows of panels; Grafana's own types come out of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, timeseries
from grafana_foundation_sdk.models.dashboard import Dashboard, DashboardCursorSync, DataSourceRef

SOURCE = DataSourceRef("prometheus", "prometheus")
"""As provisioning/datasources/prometheus.yml calls it."""

USECASE = 'usecase="$usecase"'
"""The selector that every query has: the use case chosen at the top of the dashboard."""

WIDTH, CHART_HEIGHT, NUMBER_HEIGHT = 24, 8, 4  # of Grafana's grid


@dataclass(frozen=True)
class Query:
    """A PromQL expression and the name of each of its series; labels stand in it as {{label}}."""

    expr: str
    legend: str = "{{job}}"


@dataclass(frozen=True)
class Panel:
    """Queries under one title; `unit` is Grafana's id of it, `text` says what is good or bad about what one sees."""

    title: str
    text: str
    unit: str
    queries: tuple[Query, ...]
    number: bool = False


@dataclass(frozen=True)
class Row:
    """Panels side by side, as wide as their number allows."""

    title: str
    panels: tuple[Panel, ...]


def chart(title: str, text: str, unit: str, *queries: Query) -> Panel:
    """Return a panel of curves."""
    return Panel(title, text, unit, queries)


def number(title: str, text: str, unit: str, query: Query) -> Panel:
    """Return a panel of one number for each series."""
    return Panel(title, text, unit, (query,), number=True)


def rate(metric: str, *by: str, **labels: str) -> str:
    """Return the expression of a counter's rate, summed over all but `by`.

    >>> rate("headrace_events_total", "stage")
    'sum by (stage) (rate(headrace_events_total{usecase="$usecase"}[$__rate_interval]))'
    """
    return f"sum by ({', '.join(by)}) (rate({select(metric, **labels)}[$__rate_interval]))"


def select(metric: str, **labels: str) -> str:
    """Return the selector of a metric's series of the chosen use case.

    >>> select("headrace_ready", job="worker")
    'headrace_ready{usecase="$usecase", job="worker"}'
    """
    wanted = [USECASE, *(f'{name}="{value}"' for name, value in labels.items())]
    return f"{metric}{{{', '.join(wanted)}}}"


def quantile(share: float, histogram: str, *by: str) -> str:
    """Return the expression of a histogram's quantile."""
    return f"histogram_quantile({share}, {rate(histogram + '_bucket', 'le', *by)})"


def or_none(expr: str) -> str:
    """Return an expression that is 0 where there are no series of it: nothing of the kind has happened yet."""
    return f"{expr} or on () vector(0)"


def build(name: str, title: str, text: str, rows: Sequence[Row]) -> Dashboard:
    """Return Grafana's dashboard `headrace-NAME`."""
    usecase = builders.QueryVariable("usecase").label("use case").datasource(SOURCE)
    board = (
        builders.Dashboard(f"Headrace: {title}")
        .uid(f"headrace-{name}")
        .description(text)
        .tags(["headrace"])
        .time("now-30m", "now")
        .refresh("10s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(usecase.query("label_values(headrace_ready, usecase)"))
    )
    ids = count(1)
    for row in rows:
        board = board.with_row(builders.Row(row.title).id(next(ids)))
        for panel in row.panels:
            board = board.with_panel(_panel(panel, next(ids), WIDTH // len(row.panels)))
    return board.build()


def _panel(panel: Panel, number: int, width: int) -> stat.Panel | timeseries.Panel:
    shown: stat.Panel | timeseries.Panel
    shown = stat.Panel().height(NUMBER_HEIGHT) if panel.number else timeseries.Panel().height(CHART_HEIGHT).min(0)
    shown = shown.id(number).title(panel.title).description(panel.text).unit(panel.unit).span(width).datasource(SOURCE)
    for place, query in enumerate(panel.queries):
        target = prometheus.Dataquery().datasource(SOURCE).ref_id(chr(ord("A") + place))
        shown = shown.with_target(target.expr(query.expr).legend_format(query.legend))
    return shown
