"""The stores: whether Kafka, Redis and Cassandra answer, and what keeping the state costs."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from infra.grafana.panels import Query, Row, build, chart, number, or_none, quantile, rate, select

GLANCE = (
    number(
        "Answers",
        "1: every process that needs the store gets its answers.",
        "short",
        Query(f"min by (store) ({select('headrace_store_up')})", "{{store}}"),
    ),
    number(
        "Oldest unwritten change",
        "A crash now would do so much again.",
        "s",
        Query(f"max({select('headrace_checkpoint_age_seconds')})", ""),
    ),
    number("Entities in memory", "Of all workers.", "short", Query(f"sum({select('headrace_entities')})", "")),
    number(
        "States refused",
        "Damaged states that were set aside and are rebuilt, in an hour.",
        "short",
        Query(or_none(f"sum(increase({select('headrace_states_refused_total')}[1h]))"), ""),
    ),
)

STORES = (
    chart(
        "Answers",
        "By store and service, 0 where one of its processes gets none.",
        "short",
        Query(f"min by (job, store) ({select('headrace_store_up')})", "{{store}} for {{job}}"),
    ),
    chart(
        "Repeated attempts",
        "As a store was away, a second.",
        "ops",
        Query(or_none(rate("headrace_store_retries_total", "store")), "{{store}}"),
    ),
)

CHECKPOINTS = (
    chart(
        "Time for a checkpoint",
        "Until Redis has all of it, 95 %.",
        "s",
        Query(quantile(0.95, "headrace_checkpoint_seconds", "stage"), "{{stage}}"),
    ),
    chart(
        "Age",
        "Of the oldest change that Redis has not: a second and a checkpoint's time.",
        "s",
        Query(f"max by (stage) ({select('headrace_checkpoint_age_seconds')})", "{{stage}}"),
    ),
    chart(
        "Entities written",
        "A second; each once a checkpoint, however many events it had.",
        "ops",
        Query(rate("headrace_checkpoint_entities_total", "stage"), "{{stage}}"),
    ),
)

MEMORY = (
    chart("Entities", "In memory.", "short", Query(f"sum by (stage) ({select('headrace_entities')})", "{{stage}}")),
    chart(
        "Evicted",
        "Entities that left the memory, to come back from Redis, a second.",
        "ops",
        Query(or_none(rate("headrace_evicted_total", "stage")), "{{stage}}"),
    ),
    chart(
        "Checkpoints refused",
        "Damaged checkpoints and states that were set aside, in an hour.",
        "short",
        Query(or_none(f"sum by (stage) (increase({select('headrace_states_refused_total')}[1h]))"), "{{stage}}"),
    ),
)

CASSANDRA = (
    chart(
        "Time for a batch of scores or labels",
        "Of the history and the join, Cassandra's answers included, 95 %.",
        "s",
        *(
            Query(f"histogram_quantile(0.95, {rate('headrace_batch_seconds_bucket', 'le', stage=stage)})", stage)
            for stage in ("history", "join")
        ),
    ),
    chart(
        "History's lag",
        "Scores and labels that Cassandra has not.",
        "short",
        Query(f"sum by (topic) ({select('headrace_lag_records', job='history')})", "{{topic}}"),
    ),
    chart(
        "Snapshots of entities",
        "Time to bring a partition's up to date, 95 %.",
        "s",
        Query(quantile(0.95, "headrace_snapshot_seconds", "stage"), "{{stage}}"),
    ),
    chart(
        "Snapshots of entities",
        "States written, a second.",
        "ops",
        Query(rate("headrace_snapshot_entities_total", "stage"), "{{stage}}"),
    ),
)


def stores() -> Dashboard:
    """Return the dashboard of the stores."""
    rows = [
        Row("At a glance", GLANCE),
        Row("Kafka, Redis, Cassandra", STORES),
        Row("Checkpoints in Redis", CHECKPOINTS),
        Row("Memory", MEMORY),
        Row("Cassandra", CASSANDRA),
    ]
    return build("stores", "the stores", "Whether the servers answer, and what keeping the state costs.", rows)
