"""The models: how good the scores were, which model gives them, and what it learns from."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from infra.grafana.panels import USECASE, Panel, Query, Row, build, chart, number, or_none, rate, select

MEASURES = {
    "auc": ("ROC-AUC", "How often a positive has the higher score of two; 0.5 is chance."),
    "average_precision": (
        "Average precision",
        "Compare recipes: how high it can be depends on the share of positives.",
    ),
    "log_loss": ("Log loss", "Less is better."),
    "calibration_error": ("Calibration error", "How far the probabilities are off, on average; above 0.02 it is told."),
}
ALARMS = {
    "precision": (
        "Precision",
        "Of the events that its scores would stop, reviewed or declined, how many were positive.",
    ),
    "recall": ("Recall", "Of the positives, how many its scores would stop."),
    "f1": ("F1", "The harmonic mean of both: what one of them gains at the other's cost is no gain."),
}
CHAMPION = "usecase_measure:headrace_progressive:champion"

GLANCE = (
    number(
        "Champion",
        "The recipe whose scores decide.",
        "short",
        Query(f"max by (recipe) ({select('headrace_champion')} == 1)", "{{recipe}}"),
    ),
    number(
        "Models in use",
        "When each was made; for long more than one means that a worker does not swap.",
        "dateTimeFromNow",
        Query(
            f"1000 * max by (model_id) ({select('headrace_model_created_timestamp_seconds', job='worker')})",
            "{{model_id}}",
        ),
    ),
    number(
        "Age of the model in use",
        "Seconds while examples come and nobody has pinned it.",
        "s",
        Query(f"max({select('headrace_model_age_seconds', job='worker')})", ""),
    ),
    number(
        "Its AUC and F1",
        "Over the newest labels; F1 is that of its decisions.",
        "short",
        Query(f'{CHAMPION}{{{USECASE}, measure=~"auc|f1"}}', "{{measure}}"),
    ),
    number("Examples", "Learnt from, a second.", "ops", Query(rate("headrace_examples_learnt_total"), "")),
    number(
        "Labels said",
        "Labels that people and systems sent in 6 hours, as a share of the events; below 0.1 % it is told.",
        "percentunit",
        Query(f"usecase:headrace_labels_said:ratio_rate6h{{{USECASE}}}", ""),
    ),
)


def _measured(measures: dict[str, tuple[str, str]]) -> tuple[Panel, ...]:
    return tuple(
        chart(
            title,
            f"{text} Of the scores as they were given, over the newest labels.",
            "short",
            Query(f"max by (recipe) ({select('headrace_progressive', measure=measure)})", "{{recipe}}"),
        )
        for measure, (title, text) in measures.items()
    )


LABELS = (
    chart(
        "Labels",
        "What came of them, a second: only the first of an event and corrections are learnt.",
        "ops",
        Query(or_none(rate("headrace_labels_total", "outcome")), "{{outcome}}"),
        Query(or_none(rate("headrace_events_total", stage="matured")), "assumed, one horizon later"),
    ),
    chart(
        "Labels that wait",
        "Their event is not scored yet; a few are normal, many mean that the history is behind.",
        "short",
        Query(or_none(f"sum({select('headrace_waiting_labels')})"), "waiting"),
    ),
    chart(
        "Labels over HTTP",
        "By what came of them, a second.",
        "ops",
        Query(or_none(rate("headrace_feedback_labels_total", "outcome")), "{{outcome}}"),
    ),
    chart(
        "HTTP answers",
        "Of the feedback service, by status, a second.",
        "ops",
        Query(or_none(rate("headrace_requests_total", "status")), "{{status}}"),
    ),
)

LEARNING = (
    chart("Learnt", "Examples a second.", "ops", Query(rate("headrace_examples_learnt_total"), "learnt")),
    chart(
        "Refused",
        "Examples that were not learnt from, by reason, a second.",
        "ops",
        Query(or_none(rate("headrace_examples_refused_total", "reason")), "{{reason}}"),
    ),
    chart(
        "Guard",
        "Times that learning was taken back, and how many examples are still left out.",
        "short",
        Query(or_none(f"sum by (recipe) (increase({select('headrace_guard_trips_total')}[1h]))"), "{{recipe}} trips"),
        Query(f"max by (recipe) ({select('headrace_learning_frozen')})", "{{recipe}} to leave out"),
    ),
    chart(
        "Example lag",
        "Examples that the learner has not read.",
        "short",
        Query(f"sum({select('headrace_lag_records', job='learner')})", "waiting"),
    ),
)

SERVING = (
    chart(
        "Age of the models",
        "As the learner has announced them, and as workers use them: the curves belong together.",
        "s",
        *(Query(f"max({select('headrace_model_age_seconds', job=job)})", job) for job in ("learner", "worker")),
    ),
    chart(
        "Refused",
        "Models and list entries that were not taken, in 10 minutes.",
        "short",
        Query(f"sum by (job) (increase({select('headrace_models_refused_total')}[10m]))", "models, {{job}}"),
        Query(f"sum(increase({select('headrace_listings_refused_total')}[10m]))", "list entries"),
    ),
    chart(
        "No probabilities",
        "Scores that were replaced as they were not finite, a second.",
        "ops",
        Query(rate("headrace_scores_not_finite_total", "alias"), "{{alias}}"),
    ),
    chart(
        "Listed",
        "Entities that are blocked or allowed whatever their score.",
        "short",
        Query(f"max({select('headrace_listed_entities')})", "listed"),
    ),
)


def models() -> Dashboard:
    """Return the dashboard of the models."""
    rows = [
        Row("At a glance", GLANCE),
        Row("Quality on delayed labels", _measured(MEASURES)),
        Row("Decisions on delayed labels", _measured(ALARMS)),
        Row("Labels", LABELS),
        Row("Learning", LEARNING),
        Row("Serving", SERVING),
    ]
    return build("models", "the models", "How good the scores were, and what the models learn from.", rows)
