"""Which recipe is the champion: decided on delayed labels, by the scores that were given at the time.

After every `GRID` labels each challenger is compared with the champion over the newest 16, 32 and 64 blocks of
`BLOCK` labels, pairwise: both scored the same events, and each counts for as many as it stands for. The difference of a
block's mean log losses is one observation, and the test is Student's, one-sided, over the blocks. What only one of them
scored, as the other's recipe was not there yet, is left out, and so is a label that was corrected since; a block that
has less than half of its labels left says nothing, and no window that it is in.

*Promotion*: the challenger's loss is lower by more than `MARGIN` of the champion's at p < 1e-5. So few are wrong that
looking again and again does no harm: with three looks at each point of the grid, an unjustified promotion is to be
expected once in 30 million labels a challenger.

*Rollback*: in the `PROBATION` labels after its promotion a champion that is worse than the one before it, at p < 1e-3,
makes way for it again.

Only what came after the last change counts, by whomever it was made. While a person has pinned a model, nothing
changes.
"""

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.models.progressive import Progressive, log_losses

GRID = 1024
BLOCK = 256
PROMOTES = {16: 6.11, 32: 5.02, 64: 4.61}
"""Student's t at p = 1e-5 by the number of blocks."""
ROLLS_BACK = {16: 3.73, 32: 3.37, 64: 3.22}
"""Student's t at p = 1e-3."""
MARGIN = 0.01
PROBATION = 64 * BLOCK
FEWEST_POSITIVES = 20


class Seat(msgspec.Struct, frozen=True):
    """Who is champion since how many labels, who was before, and whether a person has pinned it."""

    champion: str
    previous: str | None = None
    since: int = 0
    pinned: bool = False


class Verdict(NamedTuple):
    """Who shall be champion, and why."""

    champion: str
    reason: str


def judge(progressive: Progressive, seat: Seat) -> Verdict | None:
    """Return who shall be champion from now on, None where it stays as it is."""
    if seat.pinned or seat.champion not in progressive.recipes:
        return None
    if seat.previous in progressive.recipes and progressive.seen - seat.since <= PROBATION:
        found = _better(progressive, seat, seat.previous, ROLLS_BACK, margin=0.0)
        if found:
            return Verdict(seat.previous, f"rollback: {seat.champion} did worse than {seat.previous}: {found.text}")
    challengers = [recipe for recipe in progressive.recipes if recipe != seat.champion]
    compared = [(_better(progressive, seat, recipe, PROMOTES, MARGIN), recipe) for recipe in challengers]
    better = [(found.gain, recipe, found.text) for found, recipe in compared if found]
    if not better:
        return None
    _, best, text = max(better)
    return Verdict(best, f"promotion: {best} did better than {seat.champion}: {text}")


class _Found(NamedTuple):
    gain: float
    text: str


def _better(
    progressive: Progressive, seat: Seat, challenger: str, needed: dict[int, float], margin: float
) -> _Found | None:
    """Return by how much the challenger was better, None where that is not certain over any number of blocks."""
    champion_at, challenger_at = progressive.recipes.index(seat.champion), progressive.recipes.index(challenger)
    for blocks, least in needed.items():
        labels = blocks * BLOCK
        if progressive.seen - seat.since < labels:
            return None
        scores, truth, weights = progressive.newest(labels)
        both = ~(np.isnan(scores[:, champion_at]) | np.isnan(scores[:, challenger_at]))
        if truth[both].sum() < FEWEST_POSITIVES:
            continue
        ours, theirs = (_block_losses(scores[:, at], truth, weights, both) for at in (champion_at, challenger_at))
        t = student(ours * (1.0 - margin) - theirs)
        if t > least:
            gain = float(ours.mean() - theirs.mean())
            text = f"log loss {theirs.mean():.4f} against {ours.mean():.4f} over {labels} labels (t = {t:.1f})"
            return _Found(gain, text)
    return None


def _block_losses(
    scores: NDArray[np.float64], labels: NDArray[np.int8], weights: NDArray[np.float64], both: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return each block's mean loss over what `both` have scored, NaN where that is less than half of it."""
    masses = np.where(both, weights, 0.0)
    losses = (masses * np.where(both, log_losses(scores, labels), 0.0)).reshape(-1, BLOCK).sum(axis=1)
    counts, masses = (column.reshape(-1, BLOCK).sum(axis=1) for column in (both, masses))
    return np.where(counts >= BLOCK // 2, losses / np.where(counts, masses, 1.0), np.nan)


def student(differences: NDArray[np.float64]) -> float:
    """Return Student's t of their mean against 0; NaN where one is missing or all are 0.

    >>> round(student(np.array([1.0, 2.0, 3.0])), 3)
    3.464
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(differences.mean() / (differences.std(ddof=1) / np.sqrt(differences.size)))
