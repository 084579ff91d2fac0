"""A policy over batches: decisions, and the features that moved the scores, in one kernel call.

A *verdict* is a decision together with the rule that made it, and has a number: first those of the costs (0, 1, 2 as in
`DECISIONS`), then one a rule, then one a list and entity.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.decisions.policy import APPROVE, DECISIONS, LISTS, Policy
from streams.kernels import F64, F64_2D, FLOAT, I64, INT, OUT_F64_2D, OUT_I64_2D, kernel

REASONS = 3
NO_REASON = -1
UNLISTED = -1
NO_LISTS = np.empty(0, np.int64)
NO_EFFECTS = np.empty((0, 0))
ROUNDED = 1e4
"""Effects are told to four decimals: they are read by people, and travel with every score."""

AMOUNT, LOSS_SHARE, REVIEW_COST, REVIEW_MISSES, FRICTION, FIRST_RULE = 0, 1, 2, 3, 4, 5
COLUMN, ABOVE, SEVERITY, RULE_FLOATS = 0, 1, 2, 3
"""The places of a policy's numbers, and of each rule's from `FIRST_RULE` on."""


class Given(NamedTuple):
    """What n events were given: their `verdicts`; REASONS lists of n feature columns, `NO_REASON` where nothing moved a
    score, with as many of their effects; and how many scores were `unfit`, no probabilities."""

    verdicts: list[int]
    reasons: list[list[int]]
    effects: list[list[float]]
    unfit: int


class Verdicts:
    """A policy for feature vectors of `names`, of events with `entities`; ValueError where it does not fit them.

    `decisions` and `rules` say by its number what a verdict is, `listed` has the numbers of those of the lists:
    the higher counts.
    """

    def __init__(self, policy: Policy, names: Sequence[str], entities: Sequence[str]) -> None:
        if absent := set(policy.features).difference(names):
            raise ValueError(f"the policy reads what is no feature: {', '.join(sorted(absent))}")
        self._terms = _terms(policy, names)
        lists = [(list_, entity) for list_ in LISTS for entity in entities]
        self.decisions = [*DECISIONS, *(rule.decision for rule in policy.rules), *(LISTS[one] for one, _ in lists)]
        self.rules = [*("" for _ in DECISIONS), *map(str, policy.rules), *(" ".join(one) for one in lists)]
        self.listed = {one: len(self.rules) - len(lists) + i for i, one in enumerate(lists)}

    def give(
        self,
        rows: NDArray[np.float64],
        scores: NDArray[np.float64],
        effects: NDArray[np.float64] = NO_EFFECTS,
        listed: NDArray[np.int64] = NO_LISTS,
    ) -> Given:
        """Return what n events are given: of feature vectors float64[n, names] and calibrated scores float64[n], with
        each feature's effect float64[n, names] and each event's verdict by the lists int64[n], `UNLISTED` for none.
        """
        strengths = np.empty((REASONS, len(rows)))
        numbers = np.empty((1 + REASONS, len(rows)), np.int64)
        unfit = _give(rows, scores, effects, self._terms, listed, strengths, numbers)
        verdicts, *reasons = numbers.tolist()
        return Given(verdicts, reasons, strengths.tolist(), unfit)

    def decide(self, rows: NDArray[np.float64], scores: NDArray[np.float64]) -> list[str]:
        """Return the decisions on n events that no list names."""
        given = self.give(np.ascontiguousarray(rows), np.ascontiguousarray(scores))
        return [self.decisions[verdict] for verdict in given.verdicts]

    def alarms(self, rows: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Say which of n events, that no list names, are not simply approved."""
        return np.array([decision != APPROVE for decision in self.decide(rows, scores)], np.bool_)


def _terms(policy: Policy, names: Sequence[str]) -> NDArray[np.float64]:
    column = {name: float(i) for i, name in enumerate(names)}
    costs = policy.costs
    terms = [column[costs.amount], costs.loss_share, costs.review, 1.0 - costs.review_finds, costs.friction]
    for rule in policy.rules:
        terms += [column[rule.feature], rule.above, float(DECISIONS.index(rule.decision))]
    return np.array(terms)


@kernel(INT(F64, FLOAT, F64))
def _verdict(row: NDArray[np.float64], score: float, terms: NDArray[np.float64]) -> int:
    """Return the verdict of costs and rules on one event."""
    loss = score * terms[LOSS_SHARE] * max(row[int(terms[AMOUNT])], 0.0)
    verdict, cost = 0, loss
    review = terms[REVIEW_COST] + terms[REVIEW_MISSES] * loss
    if review < cost:
        verdict, cost = 1, review
    if (1.0 - score) * terms[FRICTION] < cost:
        verdict = 2
    severity = verdict
    for i in range((terms.size - FIRST_RULE) // RULE_FLOATS):
        at = FIRST_RULE + i * RULE_FLOATS
        if terms[at + SEVERITY] > severity and row[int(terms[at + COLUMN])] > terms[at + ABOVE]:
            severity, verdict = int(terms[at + SEVERITY]), 3 + i
    return verdict


@kernel(INT(F64_2D, F64, F64_2D, F64, I64, OUT_F64_2D, OUT_I64_2D))
def _give(
    rows: NDArray[np.float64],
    scores: NDArray[np.float64],
    effects: NDArray[np.float64],
    terms: NDArray[np.float64],
    listed: NDArray[np.int64],
    strengths: NDArray[np.float64],
    numbers: NDArray[np.int64],
) -> int:
    """Write verdicts and reasons into `numbers`, the reasons' effects into `strengths`; return how many are unfit."""
    unfit = 0
    for i in range(scores.size):
        if not 0.0 <= scores[i] <= 1.0:
            unfit += 1
        numbers[0, i] = _verdict(rows[i], scores[i], terms)
        if listed.size > 0 and listed[i] >= 0:
            numbers[0, i] = listed[i]
        for k in range(REASONS):
            strengths[k, i], numbers[1 + k, i] = 0.0, NO_REASON
        for j in range(effects.shape[1]):
            effect = np.round(effects[i, j] * ROUNDED) / ROUNDED
            if not np.isfinite(effect):
                continue
            # Weaker reasons give way, one place each; of equal ones the earlier feature stays before the later.
            k = REASONS
            while k > 0 and abs(effect) > abs(strengths[k - 1, i]):
                if k < REASONS:
                    strengths[k, i], numbers[1 + k, i] = strengths[k - 1, i], numbers[k, i]
                k -= 1
                strengths[k, i], numbers[1 + k, i] = effect, j
    return unfit
