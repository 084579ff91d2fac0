"""Learning, one example after the other: River's model, guarded, and how well it did at the time."""

from collections.abc import Mapping
from typing import Self

from streams.models.progressive import Progressive
from streams.models.recipes import RECIPES, Model

LARGEST = 1e100
"""A larger value overflows when squared, as variances do, and stays in the model for ever."""


class Learner:
    """A model that learns from labelled examples over the features `names`.

    `model`, `examples_learnt` and `examples_refused` say how far it is; `progressive` judges the scores that
    its examples were given at the time.

    >>> learner = Learner("logistic", ("amount",))
    >>> learner.learn({"amount": 12.5}, 0), learner.learn({"amount": float("nan")}, 1), learner.model_id
    (True, False, 'logistic@1')
    """

    def __init__(self, recipe: str, names: tuple[str, ...]) -> None:
        self.recipe = recipe
        self.names = names
        self.model: Model = RECIPES[recipe].make(names)
        self.examples_learnt = 0
        self.examples_refused = 0
        self.progressive = Progressive()

    @classmethod
    def resume(cls, recipe: str, names: tuple[str, ...], model: Model, examples_learnt: int) -> Self:
        """Return the learner that went as far as `model`."""
        learner = cls(recipe, names)
        learner.model, learner.examples_learnt = model, examples_learnt
        return learner

    @property
    def model_id(self) -> str:
        """The model's name: recipe and number of examples."""
        return f"{self.recipe}@{self.examples_learnt}"

    def learn(self, features: Mapping[str, float], label: int, weight: float = 1.0) -> bool:
        """Learn that `features` turned out to be `label` (0 or 1); return whether it was done.

        Refused, with nothing changed: a feature missing, a value or weight that is not finite or is absurdly
        large, a weight that is not positive.
        """
        try:
            x = {name: features[name] for name in self.names}
        except KeyError:
            x = {}
        # One sum sees NaN, infinities and the too large: each makes the comparison false.
        if not x or not sum(map(abs, x.values())) <= LARGEST or not 0.0 < weight <= LARGEST:
            self.examples_refused += 1
            return False
        self.model.learn_one(x, label == 1, w=weight)
        self.examples_learnt += 1
        return True
