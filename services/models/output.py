"""Models as text for people and as JSON for programs; pure. What others wrote never reaches a terminal raw."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from schemas.events import AliasChange
from services.models.compare import Difference, WeightChange
from streams.console import moment, printable
from streams.stores.registry import Change, Registered


def print_json(*items: Mapping[str, Any]) -> None:
    """Print one JSON object a line; a measure that is no number is null."""
    for item in items:
        print(msgspec.json.encode(item).decode(), flush=True)


def table(rows: Sequence[tuple[Registered, Sequence[str]]]) -> list[str]:
    """Return a list of snapshots and their marks as lines, with a column for each metric that there is."""
    metrics = sorted({name for row, _ in rows for name in row.metrics})
    heads = ["MADE (UTC)", "MODEL", "EXAMPLES", *(name.upper().replace("_", " ") for name in metrics), "BYTES"]
    heads += ["KEPT UNTIL", "MARKS"]
    lines = [
        [
            moment(row.created_at),
            printable(row.model_id),
            f"{row.examples_learnt:,}",
            *(number(row.metrics.get(name)) for name in metrics),
            f"{row.state_bytes:,}",
            moment(row.kept_until),
            ", ".join(marks),
        ]
        for row, marks in rows
    ]
    return columns(heads, lines)


def columns(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """Return lines with their cells under one another, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
    right = [all(_is_number(line[at]) for line in lines) and bool(lines) for at in range(len(heads))]

    def laid(cells: Sequence[str]) -> str:
        placed = zip(cells, widths, right, strict=True)
        return "  ".join(cell.rjust(width) if to_right else cell.ljust(width) for cell, width, to_right in placed)

    return [laid(line).rstrip() for line in (heads, *lines)]


def page(facts: Mapping[str, Any]) -> list[str]:
    """Return all that is said of a snapshot, a line a thing."""
    return [f"{printable(name)}: {printable(said(name, value))}" for name, value in facts.items()]


def changes(rows: Sequence[Change]) -> list[str]:
    """Return alias changes as lines."""
    lines = [
        [moment(row.changed_at), row.alias, printable(row.model_id or f"{row.recipe} (newest)"), row.by, row.reason]
        for row in rows
    ]
    return columns(["MADE (UTC)", "ALIAS", "MODEL", "BY", "REASON"], [list(map(printable, line)) for line in lines])


def compared(a: str, b: str, rows: Sequence[Difference], weights: WeightChange | None, why: str) -> list[str]:
    """Return the differences of two snapshots as lines; `why` says why weights are not among them."""
    lines = [[row.name, said(row.name, row.a), said(row.name, row.b), _change(row)] for row in rows]
    out = columns(["", printable(a), printable(b), "CHANGE"], [list(map(printable, line)) for line in lines])
    if weights is None:
        return [*out, f"weights: not compared ({why})"]
    out.append(
        f"weights: norm {weights.a:.6g} and {weights.b:.6g}, {weights.distance:.6g} apart, {weights.moved:,} moved"
    )
    return out + [f"  {printable(name)}: moved by {moved:.6g}" for name, moved in weights.parts]


def told(change: AliasChange) -> str:
    """Return what a change of an alias means."""
    if change.model is None:
        return f"{change.alias}: {change.recipe}, always its newest snapshot"
    return f"{change.alias}: {change.model.model_id}, until the next promotion"


def said(name: str, value: Any) -> str:
    """Return a value as people read it, a time as one."""
    return moment(value) if name in ("created_at", "kept_until") else text(value)


def text(value: Any) -> str:
    """Return any value as people read it."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={text(one)}" for key, one in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(text, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else "-" if value is None else str(value)


def number(value: float | None) -> str:
    """Return a measure, "-" where there is none."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,.0f}" if value.is_integer() else f"{value:.4f}"


def _change(row: Difference) -> str:
    if row.change is None:
        return ""
    return f"{row.change / 1000:+,.0f} s" if row.name == "created_at" else f"{row.change:+,.6g}"


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.replace(",", "").replace(".", "").lstrip("+-").isdigit()
