"""Models as bytes: estimators of our own as plain arrays, River's as pickles."""

import pickle
from typing import Protocol, runtime_checkable

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.models.recipes import RECIPES, Model

Arrays = dict[str, NDArray[np.generic]]


@runtime_checkable
class HasArrays(Protocol):
    """An estimator whose whole state is arrays by name."""

    def arrays(self) -> Arrays:
        """Return the state."""

    def take_arrays(self, arrays: Arrays) -> None:
        """Go on from the state that `arrays` returned of an estimator made alike; raise ValueError if not alike."""


class _Array(msgspec.Struct, array_like=True):
    dtype: str
    shape: tuple[int, ...]
    data: bytes


_decode = msgspec.msgpack.Decoder(dict[str, _Array]).decode


def dump(model: Model) -> bytes:
    """Return the whole state of `model`: one that is loaded from it learns on bit for bit as this one does."""
    if not isinstance(model, HasArrays):
        return pickle.dumps(model, protocol=5)
    arrays = {name: _Array(array.dtype.str, array.shape, array.tobytes()) for name, array in model.arrays().items()}
    return msgspec.msgpack.encode(arrays)


def load(recipe: str, names: tuple[str, ...], data: bytes) -> Model:
    """Return the model of `recipe` over the features `names` that was dumped.

    A pickle runs code: only for bytes whose signature was verified. Raises whatever damaged bytes, or those of
    another recipe or version, bring.
    """
    model = RECIPES[recipe].make(names)
    if not isinstance(model, HasArrays):
        unpickled: Model = pickle.loads(data)  # noqa: S301 - verified by the caller
        return unpickled
    arrays = {
        name: np.frombuffer(array.data, array.dtype).reshape(array.shape).copy()
        for name, array in _decode(data).items()
    }
    model.take_arrays(arrays)
    return model
