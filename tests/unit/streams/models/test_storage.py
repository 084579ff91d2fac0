"""A model that was stored goes on as one that was not."""

import numpy as np
import pytest

from streams.models.recipes import RECIPES
from streams.models.storage import HasArrays, dump, load

NAMES = ("a", "b", "c")


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_loaded_model_learns_on_bit_for_bit(recipe: str) -> None:
    """Dumped and loaded half-way, it gives the same scores ever after; if made of arrays, it has the same bytes too."""
    rows = np.random.default_rng(3).normal(size=(400, 3))
    model = RECIPES[recipe].make(NAMES)
    for at, row in enumerate(rows.tolist()):
        if at == 200:
            stored, model = model, load(recipe, NAMES, dump(model))
        x = dict(zip(NAMES, row, strict=True))
        model.learn_one(x, row[0] > row[1])
        if at >= 200:
            stored.learn_one(x, row[0] > row[1])
            assert model.predict_proba_one(x) == stored.predict_proba_one(x)
    if isinstance(model, HasArrays):
        assert dump(model) == dump(load(recipe, NAMES, dump(stored)))
