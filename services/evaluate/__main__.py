"""`python -m services.evaluate --scores SCORES.parquet`: how good the scores were, as tables and pictures."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from services.evaluate import measures, plots, report
from services.evaluate.scored import Scored, read
from streams.arguments import argument
from streams.console import ends_quietly
from streams.stores.columns import FileError
from streams.stores.files import milliseconds

PAGE = "evaluation.html"
FOREVER = 2**62


@ends_quietly
def main(arguments: list[str] | None = None) -> int:
    """Evaluate as told; the exit code is 0 once everything is written, 2 where it cannot be."""
    options = _parser().parse_args(arguments)
    folder = options.output or options.scores.with_suffix(".evaluation")
    try:
        _evaluate(options, _chosen(options), folder)
    except FileError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the files are written
        raise
    except OSError as error:
        print(f"error: {folder}: cannot be written: {error.strerror or error}", file=sys.stderr)
        return 2
    return 0


def _chosen(options: argparse.Namespace) -> Scored:
    """Return the events to judge; raises FileError where nothing can be said of them."""
    path, scored = options.scores, read(options.scores, options.threshold, options.entity)
    scored = scored.take((scored.times >= options.since) & (scored.times < options.until))
    if not len(scored):
        raise FileError(f"{path}: has no events in the time asked for")
    if scored.positives in (0, len(scored)):
        which = "1" if scored.positives == 0 else "0"
        raise FileError(f"{path}: none of its {len(scored)} events is labelled {which}: nothing to tell apart")
    return scored


def _evaluate(options: argparse.Namespace, scored: Scored, folder: Path) -> None:
    stretches = list(measures.periods(scored, options.period))
    parts = [measures.measure(stretch, begin, options.k) for begin, stretch in stretches]
    whole = measures.total(scored, parts, options.k)
    per_period = report.by_period(parts, whole, options.k, scored.entities is not None)
    per_alarm = report.by_alarm(scored.alarms, whole)
    notes = _notes(options, scored)

    several = [stretch for _, stretch in stretches] if len(stretches) > 1 else []
    pictures = {
        "roc": plots.roc(scored, several, whole),
        "precision_recall": plots.precision_recall(scored, several, whole),
        "calibration": plots.calibration(scored, whole),
        "over_time": plots.over_time(scored, parts),
    }
    tables = {"By period": per_period, "By decision": per_alarm}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, png in pictures.items():
            (folder / f"{name}.png").write_bytes(png)
        (folder / PAGE).write_text(report.page(f"Scores of {options.scores.name}", tables, notes, pictures), "utf-8")
    finally:  # tables are there also where files cannot be
        print(*map(report.text, tables.values()), "\n".join(notes), sep="\n\n")
    print(f"\n{folder / PAGE}: the tables and the pictures, which are beside it as PNGs")


def _notes(options: argparse.Namespace, scored: Scored) -> list[str]:
    first = next(iter(scored.alarms)) if scored.threshold is None else f"a score from {scored.threshold:g} on"
    notes = [f"Precision, recall and F1 are those of: {first}. ECE: expected calibration error, bins of equal mass."]
    if scored.entities is not None:
        notes.append(
            f"CP@{options.k}: of the {options.k} with the highest score of a day, the share that are compromised; "
            "those found are left out of the later days of the period."
        )
    return notes


def _date(text: str) -> int:
    """Return the epoch ms of a date, or a date and time, UTC where it names no zone."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"'{text}': must be a date such as 2026-01-31 or 2026-01-31T12:00") from None
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"'{text}': must be a number from 0 to 1")
    return share


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise ValueError(f"'{text}': must be a whole number above 0")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.evaluate",
        description="Judge a file of scored and labelled events, as services.backtest writes it: ROC-AUC, average "
        "precision, log loss, calibration error, precision, recall and F1 of the decisions, Card Precision@k, for "
        "each period and in total; with pictures.",
    )
    add = parser.add_argument
    add("--scores", type=Path, required=True, metavar="SCORES.parquet", help="event_time, label, score and decision")
    add("--period", type=argument(milliseconds), default="7d", metavar="7d", help="such as 1d or 10m (default: 7d)")
    add("--since", type=argument(_date), default=0, metavar="DATE", help="only events from then on (UTC)")
    add("--until", type=argument(_date), default=FOREVER, metavar="DATE", help="only events before then (UTC)")
    add(
        "--threshold",
        type=argument(_share),
        metavar="SCORE",
        help="precision, recall and F1 of an alarm from this score on (default: of the file's decisions)",
    )
    add(
        "--entity",
        metavar="COLUMN",
        help="whose precision Card Precision@k is (default: customer_id where the file has it)",
    )
    add("-k", type=argument(_count), default=100, metavar="K", help="entities looked at a day (default: 100)")
    add("--output", type=Path, metavar="DIR", help="for page and PNGs (default: SCORES.evaluation beside the scores)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
