"""What decides, as a use case declares it: what mistakes cost, and rules beside the model."""

from dataclasses import astuple, dataclass
from functools import cached_property
from hashlib import blake2b

APPROVE, REVIEW, DECLINE = "approve", "review", "decline"
DECISIONS = (APPROVE, REVIEW, DECLINE)
"""From the mildest to the most severe."""

ALLOW, BLOCK = "allow", "block"
LISTS = {ALLOW: APPROVE, BLOCK: DECLINE}
"""The lists of entities, and what is decided of those on them; where two lists name an event's, the later counts."""


@dataclass(frozen=True)
class Costs:
    """What each decision costs, in the unit of the feature `amount`, which is what is at stake.

    Approving a fraud costs `loss_share` of the amount. A review costs `review`, and finds the share `review_finds`
    of frauds. Declining costs `friction` where the event was legitimate.
    """

    amount: str
    loss_share: float
    review: float
    review_finds: float
    friction: float

    def __post_init__(self) -> None:
        costs = (self.loss_share, self.review, self.friction)
        if not all(0.0 < cost < float("inf") for cost in costs) or not 0.0 <= self.review_finds <= 1.0:
            raise ValueError("costs are positive, and a review finds a share of the frauds")


@dataclass(frozen=True)
class Rule:
    """An event whose `feature` lies above `above` is decided `decision`, or more severely."""

    feature: str
    above: float
    decision: str

    def __post_init__(self) -> None:
        if self.decision not in (REVIEW, DECLINE):
            raise ValueError(f"{self}: a rule makes a decision more severe: {REVIEW} or {DECLINE}")

    def __str__(self) -> str:
        return f"{self.feature} > {self.above:g}"


@dataclass(frozen=True)
class Policy:
    """How an event with a score is decided. In this order:

    1. an entity on the block list: decline; on the allow list: approve;
    2. the decision of the least expected cost, the mildest of several;
    3. made more severe by the `rules` that fit, the most severe of them, the first of several.

    `prior` is the score of an event that no model can score.
    """

    costs: Costs
    rules: tuple[Rule, ...]
    prior: float

    @cached_property
    def version(self) -> str:
        """Eight hex digits that change with any cost or rule; the lists, which change all day, are not in it."""
        return blake2b(repr(astuple(self)).encode(), digest_size=4).hexdigest()

    @property
    def features(self) -> tuple[str, ...]:
        """The features that the policy reads."""
        return (self.costs.amount, *(rule.feature for rule in self.rules))
