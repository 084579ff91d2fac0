"""Decisions of least expected cost, rules and lists, and reasons: each as an obvious twin makes them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.decisions.policy import ALLOW, APPROVE, BLOCK, DECISIONS, DECLINE, REVIEW, Costs, Policy, Rule
from streams.decisions.verdicts import NO_REASON, REASONS, UNLISTED, Verdicts

NAMES = ("tx_count", "amount", "other")
COSTS = Costs(amount="amount", loss_share=1.0, review=3.0, review_finds=0.9, friction=20.0)
RULES = (Rule("tx_count", 10, REVIEW), Rule("other", 5.5, DECLINE), Rule("tx_count", 20, DECLINE))
POLICY = Policy(COSTS, RULES, prior=0.01)
VERDICTS = Verdicts(POLICY, NAMES, ("customer", "terminal"))
BY_COSTS = Verdicts(Policy(COSTS, (), prior=0.01), NAMES, ())

amounts = st.floats(-100.0, 1e4)
probabilities = st.floats(0.0, 1.0)


def expected_costs(score: float, amount: float) -> dict[str, float]:
    """What each decision costs on average, as the policy's docstring has it."""
    fraud = max(amount, 0.0) * COSTS.loss_share
    return {
        APPROVE: score * fraud,
        REVIEW: COSTS.review + score * (1 - COSTS.review_finds) * fraud,
        DECLINE: (1 - score) * COSTS.friction,
    }


def twin(row: tuple[float, ...], score: float) -> tuple[str, str]:
    """The policy, spelt out."""
    features = dict(zip(NAMES, row, strict=True))
    costs = expected_costs(score, features["amount"])
    decision, why = min(DECISIONS, key=lambda one: costs[one]), ""
    for rule in RULES:
        if features[rule.feature] > rule.above and DECISIONS.index(rule.decision) > DECISIONS.index(decision):
            decision, why = rule.decision, str(rule)
    return decision, why


@given(
    st.lists(st.tuples(st.tuples(st.sampled_from([0.0, 10.0, 10.5, 30.0]), amounts, st.floats(0, 10)), probabilities))
)
def test_policy_equals_its_twin(events: list[tuple[tuple[float, ...], float]]) -> None:
    """Any features and scores: decision and rule are those of the spelt-out policy, whatever the batch."""
    rows = np.array([row for row, _ in events], float).reshape(len(events), len(NAMES))
    scores = np.array([score for _, score in events], float)
    given_ = VERDICTS.give(rows, scores)
    said = [(VERDICTS.decisions[one], VERDICTS.rules[one]) for one in given_.verdicts]
    expected = [twin(row, score) for row, score in events]
    # A tie of two costs may fall either way by a rounding; its costs are then equal.
    for ours, theirs, (row, score) in zip(said, expected, events, strict=True):
        costs = expected_costs(score, row[1])
        assert ours == theirs or costs[ours[0]] == pytest.approx(costs[theirs[0]], rel=1e-12)
    assert VERDICTS.decide(rows, scores) == [decision for decision, _ in said]
    assert VERDICTS.alarms(rows, scores).tolist() == [decision != APPROVE for decision, _ in said]


@pytest.mark.parametrize(
    ("score", "amount", "decision"),
    [
        (0.01, 50.0, APPROVE),  # 0.5 lost on average
        (0.10, 50.0, REVIEW),  # 3.5 against 5
        (0.90, 50.0, DECLINE),  # 2 against 7.5
        (0.01, 5000.0, REVIEW),  # 8 against 50, although the score is the first one's
        (0.90, 2.0, APPROVE),  # 1.8 at most: not worth a call, nor a customer
        (1.00, -50.0, APPROVE),  # a refund risks nothing
    ],
)
def test_the_amount_decides_with_the_score(score: float, amount: float, decision: str) -> None:
    """The same score is approved for small change and looked at for a fortune."""
    assert BY_COSTS.decide(np.array([[0.0, amount, 0.0]]), np.array([score])) == [decision]


def test_the_policy_costs_less_than_thresholds() -> None:
    """Over events whose scores come true, it costs less than any pair of thresholds on the score."""
    random = np.random.default_rng(5)
    score, amount = random.beta(0.3, 6.0, 20_000), random.lognormal(3.5, 1.2, 20_000)
    fraud = random.random(len(score)) < score
    found = random.random(len(score)) < COSTS.review_finds
    paid = {
        APPROVE: np.where(fraud, amount, 0.0),
        REVIEW: COSTS.review + np.where(fraud & ~found, amount, 0.0),
        DECLINE: np.where(fraud, 0.0, COSTS.friction),
    }

    def cost(decisions: np.ndarray) -> float:
        return sum(float(costs[decisions == one].sum()) for one, costs in paid.items())

    rows = np.column_stack([np.zeros_like(amount), amount, np.zeros_like(amount)])
    ours = cost(np.array(BY_COSTS.decide(rows, score)))
    grid = np.linspace(0.01, 1.0, 34)
    pairs = [(low, high) for low in grid for high in grid if low <= high]
    best = min(cost(np.array(DECISIONS)[np.searchsorted(pair, score, side="right")]) for pair in pairs)
    assert ours < 0.9 * best


def test_lists_come_before_everything() -> None:
    """Allowed although a rule declines; blocked although the model approves; on both lists: blocked."""
    rows, scores = np.array([[30.0, 50.0, 0.0], [0.0, 50.0, 0.0], [0.0, 50.0, 0.0]]), np.array([0.9, 0.0, 0.0])
    allow, block = VERDICTS.listed[ALLOW, "customer"], VERDICTS.listed[BLOCK, "terminal"]
    verdicts = VERDICTS.give(rows, scores, listed=np.array([allow, block, UNLISTED])).verdicts
    said = [(VERDICTS.decisions[one], VERDICTS.rules[one]) for one in verdicts]
    assert said == [(APPROVE, "allow customer"), (DECLINE, "block terminal"), (APPROVE, "")]
    allows, blocks = ([number for (one, _), number in VERDICTS.listed.items() if one == two] for two in (ALLOW, BLOCK))
    assert max(allows) < min(blocks)


@given(st.lists(st.lists(st.sampled_from([0.0, 0.25, -0.25, 1.5, -2.0, 3.25]), min_size=5, max_size=5), max_size=4))
def test_reasons_are_the_strongest_effects(effects: list[list[float]]) -> None:
    """The largest effects of either sign, the strongest first, equals in the features' order, none that is 0."""
    columns = np.array(effects, float).reshape(len(effects), 5)
    given_ = Verdicts(Policy(COSTS, (), 0.01), ("amount", *"bcde"), ()).give(
        np.zeros((len(effects), 5)), np.zeros(len(effects)), columns
    )
    for i, row in enumerate(effects):
        strongest = sorted((j for j in range(5) if row[j]), key=lambda j: (-abs(row[j]), j))[:REASONS]
        assert [one[i] for one in given_.reasons if one[i] != NO_REASON] == strongest
        assert [one[i] for one in given_.effects][: len(strongest)] == [row[j] for j in strongest]


def test_what_is_no_probability_is_counted() -> None:
    """NaN, infinities and what is outside of 0 to 1, wherever in the batch."""
    scores = np.array([0.0, np.nan, 1.0, np.inf, -np.inf, 1.5, -0.5])
    assert VERDICTS.give(np.zeros((7, 3)), scores).unfit == 5


def test_a_policy_over_features_that_are_not_there_is_refused() -> None:
    """The first start of a use case with a misspelt feature says which."""
    with pytest.raises(ValueError, match="amount, tx_count"):
        Verdicts(POLICY, ("other",), ())
