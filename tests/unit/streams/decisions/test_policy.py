"""What a use case may declare of its decisions."""

from dataclasses import replace

import pytest

from streams.decisions.policy import DECLINE, REVIEW, Costs, Policy, Rule

COSTS = Costs(amount="amount", loss_share=1.0, review=3.0, review_finds=0.9, friction=20.0)
POLICY = Policy(COSTS, (Rule("tx_count", 10, REVIEW),), prior=0.01)


@pytest.mark.parametrize(
    "other",
    [
        replace(POLICY, costs=replace(COSTS, friction=20.1)),
        replace(POLICY, costs=replace(COSTS, amount="amount_max")),
        replace(POLICY, rules=(Rule("tx_count", 11, REVIEW),)),
        replace(POLICY, rules=(Rule("tx_count", 10, DECLINE),)),
        replace(POLICY, rules=()),
        replace(POLICY, prior=0.02),
    ],
)
def test_another_policy_has_another_version(other: Policy) -> None:
    """Whatever changes a decision changes the version, and nothing else does."""
    assert other.version != POLICY.version == replace(POLICY).version


@pytest.mark.parametrize("change", [{"review": 0.0}, {"friction": float("nan")}, {"loss_share": -1.0}])
def test_costs_are_positive(change: dict[str, float]) -> None:
    """A mistake that pays would be made on purpose."""
    with pytest.raises(ValueError, match="positive"):
        replace(COSTS, **change)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_review_finds_a_share(share: float) -> None:
    """Not more than all frauds, not fewer than none."""
    with pytest.raises(ValueError, match="share"):
        replace(COSTS, review_finds=share)


def test_a_rule_is_severe_and_says_itself() -> None:
    """A rule that approves would be a hole in the model; what it says is what a score carries."""
    with pytest.raises(ValueError, match="more severe"):
        Rule("tx_count", 10, "approve")
    assert str(Rule("tx_count", 10, REVIEW)) == "tx_count > 10"
