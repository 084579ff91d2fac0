"""The measures as tables: lines of text for the terminal, and one HTML page with the pictures in it."""

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from math import isnan

from services.evaluate.measures import Measures
from services.evaluate.scored import DAY

Rows = list[list[str]]

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1180px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.4em } h2 { font-size: 1.1em; margin-top: 2em }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9em }
th, td { padding: 0.2em 0.8em; text-align: right } th:first-child, td:first-child { text-align: left }
th { border-bottom: 1px solid #888; font-weight: 600 } tr.total td { border-top: 1px solid #888; font-weight: 600 }
figure { margin: 0.5em 0 } img { max-width: 100%; height: auto } .pair { display: flex; flex-wrap: wrap }
.pair figure { flex: 1 1 480px } .pair figure:last-child { flex-basis: 100% }
p { max-width: 75ch } .scroll { overflow-x: auto }
"""


def by_period(parts: Sequence[Measures], whole: Measures, k: int, cards: bool) -> Rows:
    """Return a header, a row a period and one of all; precision, recall and F1 are of the first kind of alarm."""
    card = [f"CP@{k}"] if cards else []
    header = ["from (UTC)", "events", "positive", "AUC", "AP", "log loss", "ECE", *card, "precision", "recall", "F1"]
    dates_only = all(part.begin % DAY == 0 for part in parts)
    rows = [header]
    for name, part in [*((_moment(part.begin, dates_only), part) for part in parts), ("total", whole)]:
        first = part.alarms[0]
        shares = [part.auc, part.average_precision, part.log_loss, part.calibration_error]
        shares += [part.card_precision] * cards + [first.precision, first.recall, first.f1]
        rows.append([name, f"{part.events:,}", f"{part.positives:,}", *map(_share, shares)])
    return rows


def by_alarm(names: Iterable[str], whole: Measures) -> Rows:
    """Return a header and a row a kind of alarm, over all events."""
    rows = [["decision", "events", "of all", "precision", "recall", "F1"]]
    for name, given in zip(names, whole.alarms, strict=True):
        shares = map(_share, (given.alarms / whole.events, given.precision, given.recall, given.f1))
        rows.append([name, f"{given.alarms:,}", *shares])
    return rows


def text(rows: Rows) -> str:
    """Return the rows as aligned lines."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)


def page(title: str, tables: Mapping[str, Rows], notes: Sequence[str], pictures: Mapping[str, bytes]) -> str:
    """Return one HTML page that needs nothing else; `pictures` are PNGs by their caption."""
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for caption, rows in tables.items():
        parts.append(f"<h2>{html.escape(caption)}</h2>\n<div class=scroll>{_table(rows)}</div>")
    parts += [f"<p>{html.escape(note)}</p>" for note in notes]
    figures = [
        f'<figure><img alt="{html.escape(caption)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        "</figure>"
        for caption, png in pictures.items()
    ]
    body = "\n".join([*parts, "<div class=pair>", *figures, "</div>"])
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _table(rows: Rows) -> str:
    header, *others = rows
    lines = ["<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in header) + "</tr>"]
    for row in others:
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
        lines.append(f"<tr{' class=total' * (row[0] == 'total')}>{cells}</tr>")
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _share(value: float) -> str:
    return "–" if isnan(value) else f"{value:.4f}"


def _moment(time: int, date_only: bool) -> str:
    moment = datetime.fromtimestamp(time / 1000, UTC)
    return f"{moment:%Y-%m-%d}" if date_only else f"{moment:%Y-%m-%d %H:%M:%S}"
