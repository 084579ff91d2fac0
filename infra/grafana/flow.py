"""The flow: how many events come, how soon they are scored, what waits, and which process does its share."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from infra.grafana.panels import USECASE, Query, Row, build, chart, number, or_none, quantile, rate, select

SECONDS = "headrace_event_to_score_seconds"

GLANCE = (
    number(
        "Scores", "Events that were scored, a second.", "ops", Query(f"usecase:headrace_scores:rate5m{{{USECASE}}}", "")
    ),
    number(
        "99 % within",
        "From Kafka's taking an event in to its score.",
        "s",
        Query(f"usecase:{SECONDS}:p99_5m{{{USECASE}}}", ""),
    ),
    number(
        "Late in the last hour",
        "Share of the scores that took over 100 ms; 1 % is promised over 30 days.",
        "percentunit",
        Query(f"usecase:headrace_late:ratio_rate1h{{{USECASE}}}", ""),
    ),
    number(
        "Waiting",
        "Records not yet processed, of all topics.",
        "short",
        Query(f"sum({select('headrace_lag_records')})", ""),
    ),
    number(
        "Not ready",
        "Processes that say no at /readyz; a standby does.",
        "short",
        Query(f"sum(1 - {select('headrace_ready')})", ""),
    ),
    number(
        "Alerts",
        "That fire now.",
        "short",
        Query(or_none(f'count(ALERTS{{alertstate="firing", {USECASE}}})'), ""),
    ),
)

LATENCY = (
    chart(
        "Event → score",
        "From Kafka's taking an event in to its score, all stages and the ways between them included.",
        "s",
        *(Query(quantile(share, SECONDS), f"{share:.0%}") for share in (0.5, 0.95, 0.99)),
    ),
    chart(
        "Late",
        "Share of the scores that took over 100 ms; above 14.4 % for an hour it pages.",
        "percentunit",
        *(Query(f"usecase:headrace_late:ratio_rate{window}{{{USECASE}}}", window) for window in ("5m", "1h", "6h")),
    ),
    chart(
        "Event → servable",
        "Until an event's states can be read in Redis: 99 % of the scores, and then the oldest unwritten change.",
        "s",
        Query(f"usecase:headrace_freshness_seconds:p99_5m{{{USECASE}}}", "99 %"),
    ),
    chart(
        "Time for a batch, 95 %",
        "Where the time goes: a stage that grows is the one that is short of CPU or waits for its store.",
        "s",
        Query(quantile(0.95, "headrace_batch_seconds", "stage"), "{{stage}}"),
    ),
)

FLOW = (
    chart("Records", "Processed, a second.", "ops", Query(rate("headrace_events_total", "stage"), "{{stage}}")),
    chart(
        "Records in a batch",
        "More of them mean that the stage is busy: it takes what has gathered meanwhile.",
        "short",
        Query(
            f"{rate('headrace_events_total', 'stage')} / ({rate('headrace_batches_total', 'stage')} > 0)", "{{stage}}"
        ),
    ),
    chart(
        "Waiting, by topic",
        "Records that are in Kafka and not processed.",
        "short",
        Query(f"sum by (job, topic) ({select('headrace_lag_records')})", "{{job}} {{topic}}"),
    ),
    chart(
        "Waiting, by partition",
        "The ten with most: one that stands out is held up, or its key is hot.",
        "short",
        Query(f"topk(10, {select('headrace_lag_records')})", "{{topic}}/{{partition}}"),
    ),
)

ODD = (
    chart(
        "Dead letters",
        "Put aside in 10 minutes, by reason; `python -m services.dlq` shows them.",
        "short",
        Query(or_none(f"usecase_reason:headrace_dlq:increase10m{{{USECASE}}}"), "{{reason}}"),
    ),
    chart(
        "Dropped and late",
        "Records seen before, which a replay brings, and records too late for their windows, a second.",
        "ops",
        Query(or_none(rate("headrace_duplicates_total", "stage")), "{{stage}} seen before"),
        Query(or_none(rate("headrace_late_total", "stage")), "{{stage}} late"),
    ),
    chart(
        "Held back",
        "Records of a replay that wait until all watermarks have passed them; live there are none.",
        "short",
        Query(or_none(f"sum by (stage) ({select('headrace_held_records')})"), "{{stage}}"),
    ),
)

PROCESSES = (
    chart("Ready", "Processes that say yes at /readyz.", "short", Query(f"sum by (job) ({select('headrace_ready')})")),
    chart(
        "Up",
        "Processes that serve their metrics.",
        "short",
        Query(f"sum by (job) ({select('up')})"),
    ),
    chart(
        "Stood still",
        "For how long work has waited though no store is away; at 60 s the process ends and is replaced.",
        "s",
        Query(f"max by (job, instance) ({select('headrace_stalled_seconds')})", "{{job}} {{instance}}"),
    ),
)


def flow() -> Dashboard:
    """Return the dashboard of the flow."""
    rows = [
        Row("At a glance", GLANCE),
        Row("Latency", LATENCY),
        Row("Flow", FLOW),
        Row("What is odd", ODD),
        Row("Processes", PROCESSES),
    ]
    return build("flow", "the flow", "How many events come, how soon they are scored, and what waits.", rows)
