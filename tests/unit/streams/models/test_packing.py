"""What is packed comes back to the bit, takes less room, and packs of before are still read."""

import msgspec
import numpy as np
import pytest

from streams.models.calibration import Calibrator
from streams.models.packing import pack, unpack
from streams.models.recipes import RECIPES, Model
from streams.models.storage import dump
from tests.weights import weights

NAMES = ("amount", "count")


def taught(recipe: str) -> tuple[Model, Calibrator]:
    model, calibrator = RECIPES[recipe].make(NAMES), Calibrator()
    for row in np.random.default_rng(1).normal(size=(200, 2)).tolist():
        model.learn_one(dict(zip(NAMES, row, strict=True)), row[0] > 0.5)
        calibrator.learn(0.3, int(row[0] > 0.5))
    return model, calibrator


@pytest.mark.parametrize("recipe", RECIPES)
def test_it_comes_back_as_it_was(recipe: str) -> None:
    """Model and calibrator, packed now or before there was a format; the newer takes less room."""
    model, calibrator = taught(recipe)
    before = msgspec.msgpack.encode((dump(model), calibrator.to_array().tobytes()))
    assert len(pack(model, calibrator)) < 0.9 * len(before)
    for data in (pack(model, calibrator), before):
        unpacked = unpack(recipe, NAMES, data)
        assert weights(unpacked.model) == weights(model)
        assert unpacked.calibrator.to_array().tobytes() == calibrator.to_array().tobytes()


@pytest.mark.parametrize("damaged", [b"", b"\x01", b"\x01nonsense", b"\x02" + b"x" * 20, b"\x92\x01"])
def test_damaged_bytes_raise(damaged: bytes) -> None:
    """What is neither format."""
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the libraries bring
        unpack("binned", NAMES, damaged)
