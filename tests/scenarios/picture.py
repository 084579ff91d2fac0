"""Average precision over the payments of a course, as a PNG."""

import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from tests.scenarios.payments import Payments

COLORS = {"champion": "#222222", "other": "#2166ac", "third": "#b8860b"}
MARK, FAINT = "#c0392b", "#9aa5b1"
DRAWN, STEP = 3_000, 250


class Line(NamedTuple):
    """Scores float64[n] under a name, in one of COLORS."""

    name: str
    scores: NDArray[np.float64]
    color: str


class Panel(NamedTuple):
    """Lines, and what happened at which payments."""

    title: str
    lines: Sequence[Line]
    marks: Mapping[str, int]
    spans: Mapping[str, tuple[int, int]] = {}


def draw(payments: Payments, panels: Sequence[Panel], levels: Mapping[str, float] | None = None) -> bytes:
    """Return one panel below the other: average precision over the newest DRAWN payments at each, and `levels`."""
    mpl.use("Agg")
    figure = Figure(figsize=(11, 3.6 * len(panels)), dpi=120, layout="constrained")
    stops = np.arange(DRAWN, len(payments) + 1, STEP)
    for axes, panel in zip(np.atleast_1d(figure.subplots(len(panels), 1, sharex=True)), panels, strict=True):
        for name, scores, color in panel.lines:
            rows = [slice(stop - DRAWN, stop) for stop in stops]
            values = [average_precision_score(payments.labels[some], scores[some]) for some in rows]
            axes.plot(stops / 1000, values, color=COLORS[color], label=name)
        for (name, at), style in zip(panel.marks.items(), ("-", "--", ":"), strict=False):
            axes.axvline(at / 1000, color=MARK, linestyle=style, linewidth=1.2, label=name)
        for name, (begin, end) in panel.spans.items():
            axes.axvspan(begin / 1000, end / 1000, color=MARK, alpha=0.15, linewidth=0, label=name)
        for name, level in (levels or {}).items():
            axes.axhline(level, color=FAINT, linestyle=":", label=f"{name}: {level:.3f}")
        axes.set(title=panel.title, ylabel=f"average precision,\nlast {DRAWN:,} payments", ylim=(0, None))
        axes.grid(visible=True, alpha=0.3)
        axes.margins(x=0.01)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9, frameon=False)
    axes.set_xlabel("payments (thousands)")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
