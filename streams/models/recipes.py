"""The models there are, by name: each a few lines of River, ready to learn."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from river import base, forest, linear_model, optim, preprocessing
from river import tree as trees

from streams.models.binned import BinnedRegression


class Model(Protocol):
    """What the streams ask of a River classifier."""

    def learn_one(self, x: dict[Any, Any], y: Any, *, w: float = 1.0) -> None:
        """Learn that `x` turned out to be `y`; `w` is the example's weight."""

    def predict_proba_one(self, x: dict[Any, Any]) -> dict[Any, float]:
        """Return the probability of False and of True."""


@dataclass(frozen=True)
class Recipe:
    """A model by name; `make` returns it unlearnt, over the features of the names given.

    A `heavy` one takes longer to copy and to ask than an example is worth: its guard does both seldom.
    """

    name: str
    make: Callable[[tuple[str, ...]], Model]
    heavy: bool = False


def logistic(names: tuple[str, ...]) -> Model:  # noqa: ARG001 - it takes features as they come
    """Return a scaled logistic regression for a rare positive class; unlearnt it says 1.8 % of everything.

    The rate was chosen on the validation folds of the handbook's transactions (0.001 … 0.005 differ by less
    than 0.003 in average precision; the fastest of those learns soonest); the clip bounds what one weighted
    example can do.
    """
    return preprocessing.StandardScaler() | linear_model.LogisticRegression(
        optimizer=optim.SGD(0.003), intercept_init=-4.0, intercept_lr=0.003, clip_gradient=5.0
    )


ALONE = (
    "amount",
    "amount_to_mean",
    "amount_to_past_mean",
    "max_to_past_mean_7d",
    "recent_to_past_mean_7d",
    "customer_tx_count_10m",
    "customer_tx_count_1h",
    "customer_tx_count_1d",
    "terminal_tx_count_1h",
    "terminal_tx_count_1d",
    "terminal_label_count_7d",
    "terminal_fraud_rate_1d",
    "terminal_fraud_rate_7d",
    "terminal_fraud_rate_30d",
    "terminal_seconds_since_fraud_30d",
    "terminal_seconds_since_legitimate_30d",
)
TOGETHER = (
    ("amount", "amount_to_past_mean", "max_to_past_mean_7d"),
    ("terminal_fraud_rate_7d", "terminal_seconds_since_legitimate_30d", "terminal_seconds_since_fraud_30d"),
    ("terminal_fraud_rate_7d", "terminal_seconds_since_legitimate_30d", "terminal_label_count_7d"),
    ("terminal_fraud_rate_7d", "terminal_seconds_since_legitimate_30d", "amount_to_past_mean"),
    ("terminal_fraud_rate_1d", "terminal_fraud_rate_30d", "terminal_seconds_since_legitimate_30d"),
)
"""What card fraud is seen in, one feature by itself and several together: chosen on the validation folds of the
handbook's transactions (infra/decisions/0014-recipes.md). What more features add is noise in the order of the many."""


def binned(names: tuple[str, ...], floor: float = 0.01) -> Model:
    """Return a logistic regression over bins of those of `ALONE` and `TOGETHER` that are there, else of all."""
    alone = tuple(name for name in ALONE if name in names)
    return BinnedRegression(
        names, tuple(cross for cross in TOGETHER if set(cross) <= set(names)), alone or None, floor=floor
    )


def nimble(names: tuple[str, ...]) -> Model:
    """Return one that forgets sooner: a little worse in quiet times, the first to see that fraud has changed."""
    return binned(names, floor=0.05)


class Only(base.Transformer):
    """Passes on those of `names` that are there, in their order: River's `Select` goes by a set, and wants all.

    >>> Only(("a", "b")).transform_one({"c": 1, "b": 2})
    {'b': 2}
    """

    def __init__(self, names: tuple[str, ...] = ("",)) -> None:
        self.names = names

    def transform_one(self, x: dict[Any, Any]) -> dict[Any, Any]:
        """Return what is left of `x`."""
        return {name: x[name] for name in self.names if name in x}


LARGEST_TREE = 4.0  # MiB
MEASURED_EVERY = 8_192
"""Examples between two looks at how large a tree is. River's own look is at multiples of the weight seen, which
weighted examples step over."""
NEVER = 1 << 62


class BoundedTree(trees.HoeffdingAdaptiveTreeClassifier):
    """River's Hoeffding adaptive tree, held to its size whatever the examples weigh."""

    _examples = 0

    def learn_one(self, x: dict[Any, Any], y: Any, *, w: float = 1.0) -> None:
        """Learn that `x` turned out to be `y`, as if `w` times."""
        super().learn_one(x, y, w=w)  # type: ignore[no-untyped-call]
        self._examples += 1
        if self._examples % MEASURED_EVERY == 0:
            _hold(self)


def tree(names: tuple[str, ...]) -> Model:
    """Return a Hoeffding tree that replaces branches whose errors drift (Bifet & Gavaldà, 2009)."""
    return _looking(names) | BoundedTree(
        grace_period=500,
        delta=1e-3,
        max_share_to_split=1.0,
        leaf_prediction="mc",
        splitter=trees.splitter.HistogramSplitter(),
        max_size=LARGEST_TREE,
        memory_estimate_period=NEVER,
        seed=1,
    )


class WeighedForest(forest.ARFClassifier):
    """River's adaptive random forest, in which an example's weight is how often a tree draws it on average, each
    tree held to its size."""

    _examples = 0

    def learn_one(self, x: dict[Any, Any], y: Any, w: float = 1.0) -> None:  # type: ignore[override]
        """Learn that `x` turned out to be `y`, as if `w` times."""
        usual, self.lambda_value = self.lambda_value, self.lambda_value * w  # type: ignore[assignment]
        super().learn_one(x, y)
        self.lambda_value = usual
        self._examples += 1
        if self._examples % MEASURED_EVERY == 0:
            for one in self:
                _hold(one)


def _hold(one: trees.HoeffdingTreeClassifier) -> None:
    """Let a tree give up its least promising leaves if it is too large."""
    if one._root is not None:
        one._estimate_model_size()  # type: ignore[no-untyped-call]


def adaptive_forest(names: tuple[str, ...]) -> Model:
    """Return five such trees, each over its own draw of examples and features (Gomes et al., 2017).

    A tree draws an example once on average, not six times: a few weighty ones would be grounds enough to split.
    """
    return _looking(names) | WeighedForest(
        n_models=5,
        lambda_value=1,
        grace_period=500,
        delta=1e-3,
        max_share_to_split=1.0,
        leaf_prediction="mc",
        splitter=trees.splitter.HistogramSplitter(),
        max_size=LARGEST_TREE,
        memory_estimate_period=NEVER,
        seed=1,
    )


def _looking(names: tuple[str, ...]) -> Only:
    """Return what leaves out the features that `binned` does not look at either."""
    return Only(tuple(name for name in ALONE if name in names) or names)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("binned", binned),
        Recipe("nimble", nimble),
        Recipe("logistic", logistic),
        Recipe("tree", tree, heavy=True),
        Recipe("forest", adaptive_forest, heavy=True),
    )
}
