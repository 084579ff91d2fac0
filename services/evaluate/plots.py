"""ROC, precision and recall, calibration, and scores over time, as PNGs."""

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from services.evaluate.measures import Measures
from services.evaluate.scored import DAY, Scored

INK, POSITIVE, NEGATIVE, FAINT = "#222222", "#c0392b", "#2166ac", "#9aa5b1"
MARKS = "os"
STYLES = ("--", "-.")
DPI = 120
STEPS = 80  # at most, over the time
LEAST = 1e-4  # scores below are drawn here
TICKS = (1e-4, 1e-3, 1e-2, 0.1, 0.5, 0.9, 0.99, 0.999)
BINS = np.concatenate([[0.0], 1 / (1 + np.exp(-np.arange(-8.5, 8.6, 1.0))), [1.0 + 1e-9]])
"""Bins of equal width in log odds: rare events and sure ones are both seen."""


def roc(scored: Scored, parts: Sequence[Scored], whole: Measures) -> bytes:
    """Draw the share of positives found over the share of negatives alarmed."""
    figure, axes = _axes("share of negatives at or above the threshold", "share of positives found (recall)")
    inset = axes.inset_axes((0.42, 0.12, 0.54, 0.54))
    negatives = whole.events - whole.positives
    wrongly = [alarms.alarms * (1 - alarms.precision) / negatives if alarms.alarms else 0.0 for alarms in whole.alarms]
    for panel in (axes, inset):
        for part in parts:
            if 0 < part.positives < len(part):
                wrong, right, _ = roc_curve(part.labels, part.scores)
                panel.plot(wrong, right, color=FAINT, linewidth=0.6, alpha=0.6)
        wrong, right, _ = roc_curve(scored.labels, scored.scores)
        panel.plot(wrong, right, color=INK, linewidth=1.8, label=f"all: AUC {whole.auc:.4f}")
        _mark(panel, scored, whole, wrongly, [alarms.recall for alarms in whole.alarms])
    axes.plot([0, 1], [0, 1], color=FAINT, linestyle=":", linewidth=1)
    inset.set(xlim=(0, min(max(0.02, 1.5 * max(wrongly)), 1)), ylim=(0, 1), title="the first alarms")
    inset.locator_params(axis="x", nbins=5)
    inset.title.set_fontsize(9)
    inset.tick_params(labelsize=8)
    inset.grid(visible=True, alpha=0.3)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), title="ROC")
    _explain(axes, len(parts))
    return _png(figure)


def precision_recall(scored: Scored, parts: Sequence[Scored], whole: Measures) -> bytes:
    """Draw precision over recall."""
    figure, axes = _axes("share of positives found (recall)", "share of alarms that are right (precision)")
    for part in parts:
        if part.positives:
            precision, recall, _ = precision_recall_curve(part.labels, part.scores, drop_intermediate=True)
            axes.step(recall[:-1], precision[:-1], where="pre", color=FAINT, linewidth=0.6, alpha=0.6)
    precision, recall, _ = precision_recall_curve(scored.labels, scored.scores, drop_intermediate=True)
    label = f"all: average precision {whole.average_precision:.4f}"
    axes.step(recall[:-1], precision[:-1], where="pre", color=INK, linewidth=1.8, label=label)
    rate = whole.positives / whole.events
    axes.axhline(rate, color=FAINT, linestyle=":", linewidth=1, label=f"alarms at random: {rate:.4f}")
    _mark(axes, scored, whole, [alarms.recall for alarms in whole.alarms], [one.precision for one in whole.alarms])
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), title="Precision and recall")
    _explain(axes, len(parts))
    return _png(figure)


def calibration(scored: Scored, whole: Measures) -> bytes:
    """Draw which share was positive over what the scores said, and how many scores there are of each."""
    figure = _figure(6.2, 6.4)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    place = np.digitize(scored.scores, BINS) - 1
    counts = np.bincount(place, minlength=len(BINS) - 1)
    positives = np.bincount(place, scored.labels, minlength=len(BINS) - 1)
    held = counts > 0
    said = np.bincount(place, scored.scores, minlength=len(BINS) - 1)[held] / counts[held]
    low, high = _wilson(positives[held], counts[held])
    observed = positives[held] / counts[held]
    axes.plot([LEAST, 1 - LEAST], [LEAST, 1 - LEAST], color=FAINT, linestyle=":", label="as calibrated")
    axes.vlines(_within(said), _within(low), _within(high), color=INK, linewidth=1, label="95 % interval")
    axes.plot(_within(said), _within(observed), "o-", color=INK, markersize=4, label="all")
    axes.set(ylabel="share that was positive", title=f"Calibration: expected error {whole.calibration_error:.5f}")
    for labels, color, name in ((0, NEGATIVE, "negative"), (1, POSITIVE, "positive")):
        some = _within(scored.scores[scored.labels == labels])
        below.hist(some, bins=_within(BINS), histtype="step", color=color, label=name)
    below.set(yscale="log", ylabel="events", xlabel="score (scale: log odds)")
    for panel in (axes, below):
        panel.set_xscale("logit")
        panel.grid(visible=True, alpha=0.3)
        for (name, border), style in zip(_borders(scored).items(), STYLES, strict=False):
            panel.axvline(border, color=POSITIVE, linestyle=style, linewidth=1, label=f"{name} from {border:.3g}")
    axes.set_yscale("logit")
    _log_odds(axes.xaxis)
    _log_odds(axes.yaxis)
    axes.legend(loc="upper left", fontsize=8)
    below.legend(*(some[:2] for some in below.get_legend_handles_labels()), loc="upper right", fontsize=8)
    return _png(figure)


def over_time(scored: Scored, parts: Sequence[Measures]) -> bytes:
    """Draw what positives and negatives were scored, what was expected and what came, and the measures a period."""
    figure = _figure(12, 8.5)
    scores, rates, quality = figure.subplots(3, 1, sharex=True, height_ratios=(3, 2, 2))
    begins, slices = _steps(scored.times)
    at = [datetime.fromtimestamp(begin / 1000, UTC) for begin in begins]
    for label, color, name, tail in ((0, NEGATIVE, "negative", 0.05), (1, POSITIVE, "positive", 0.25)):
        some = [scored.scores[rows][scored.labels[rows] == label] for rows in slices]
        low, middle, high = (
            _within([np.quantile(one, share) if one.size else np.nan for one in some])
            for share in (tail, 0.5, 1 - tail)
        )
        scores.plot(at, middle, ".-", color=color, markersize=3, label=f"{name}: median, {tail:.0%} to {1 - tail:.0%}")
        scores.fill_between(at, low, high, color=color, alpha=0.15, linewidth=0)
    for (name, border), style in zip(_borders(scored).items(), STYLES, strict=False):
        scores.axhline(border, color=POSITIVE, linestyle=style, linewidth=1, label=f"{name} from {border:.3g}")
    scores.set(yscale="logit", ylabel="score (scale: log odds)", title="Scores over time")
    _log_odds(scores.yaxis)
    rates.plot(at, [scored.labels[rows].mean() for rows in slices], color=POSITIVE, label="positive")
    rates.plot(at, [scored.scores[rows].mean() for rows in slices], color=INK, label="expected (mean score)")
    for (name, given), style in zip(scored.alarms.items(), STYLES, strict=False):
        rates.plot(at, [given[rows].mean() for rows in slices], color=FAINT, linestyle=style, label=name)
    rates.set(ylabel="share of the events")
    rates.set_ylim(bottom=0)
    starts = [datetime.fromtimestamp(part.begin / 1000, UTC) for part in parts]
    for name, color, values in (
        ("ROC-AUC", NEGATIVE, [part.auc for part in parts]),
        ("average precision", INK, [part.average_precision for part in parts]),
        ("recall of alarms", POSITIVE, [part.alarms[0].recall for part in parts]),
    ):
        quality.step([*starts, at[-1]], [*values, values[-1]], where="post", color=color, label=name)
    quality.set(ylabel="a period", ylim=(0, 1.02), xlabel="event time (UTC)")
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    quality.xaxis.set_major_locator(locator)
    quality.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    for panel in (scores, rates, quality):
        panel.grid(visible=True, alpha=0.3)
        panel.margins(x=0.01)
        panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9, frameon=False)
    return _png(figure)


def _figure(width: float, height: float) -> Figure:
    mpl.use("Agg")
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def _axes(x: str, y: str) -> tuple[Figure, Axes]:
    figure = _figure(6.2, 6.4)
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y)
    axes.grid(visible=True, alpha=0.3)
    return figure, axes


def _mark(axes: Axes, scored: Scored, whole: Measures, across: Sequence[float], up: Sequence[float]) -> None:
    for name, alarms, x, y, mark in zip(scored.alarms, whole.alarms, across, up, MARKS, strict=False):
        if alarms.alarms:
            axes.plot([x], [y], mark, color=POSITIVE, markersize=7, label=f"{name}: F1 {alarms.f1:.3f}", zorder=5)


def _explain(axes: Axes, periods: int) -> None:
    if periods > 1:
        axes.plot([], [], color=FAINT, linewidth=0.8, label=f"each of {periods} periods")
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.1), ncols=2, fontsize=8, frameon=False)


def _borders(scored: Scored) -> dict[str, float]:
    """Return the threshold, or the lowest alarmed score of each decision that goes by the score alone."""
    if scored.threshold is not None:
        return {name: float(_within(scored.threshold)) for name in scored.alarms}
    return {
        name: float(_within(scored.scores[given].min()))
        for name, given in scored.alarms.items()
        if given.any() and (given.all() or scored.scores[~given].max() < scored.scores[given].min())
    }


def _steps(times: NDArray[np.int64]) -> tuple[list[int], list[slice]]:
    """Return where each of up to STEPS equal steps of time begins that has events, and its rows."""
    span = int(times[-1] - times[0]) + 1
    length = -(-span // STEPS)
    if span >= 10 * DAY:
        length = -(-length // DAY) * DAY  # no step is a night
    start = int(times[0]) // min(length, DAY) * min(length, DAY)
    step = (times - start) // length
    cuts = [0, *(np.flatnonzero(np.diff(step)) + 1).tolist(), len(times)]
    rows = [slice(begin, end) for begin, end in pairwise(cuts)]
    return [start + int(step[one.start]) * length for one in rows], rows


def _within(scores: Any) -> NDArray[np.float64]:
    """Return scores as they are drawn in log odds, where 0 and 1 have no place."""
    return np.clip(np.asarray(scores, np.float64), LEAST, 1 - LEAST)


def _wilson(hits: NDArray[Any], counts: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the 95 % intervals of shares (Wilson 1927)."""
    z = 1.96
    share, spread = hits / counts, z * z / counts
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * np.sqrt(share * (1 - share) / counts + spread / (4 * counts))
    return middle - half, middle + half


def _log_odds(axis: Any) -> None:
    axis.set_ticks(TICKS)
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
