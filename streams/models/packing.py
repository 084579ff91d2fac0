"""A model and its calibrator as bytes, compressed: the first byte says in which format.

A state of a model of ours is mostly numbers that do not repeat (three quarters are left), a pickle of River's text.
"""

import zlib
from typing import NamedTuple

import msgspec
import numpy as np

from streams.models.calibration import Calibrator
from streams.models.recipes import Model
from streams.models.storage import dump, load

COMPRESSED = b"\x01"
"""What was packed before there was a format begins with 0x92, msgpack's pair, and is not compressed."""

_decode = msgspec.msgpack.Decoder(tuple[bytes, bytes]).decode


class Packed(NamedTuple):
    """What was packed: a model and what turns its raw scores into probabilities."""

    model: Model
    calibrator: Calibrator


def pack(model: Model, calibrator: Calibrator) -> bytes:
    """Return both as they are now."""
    pair = msgspec.msgpack.encode((dump(model), calibrator.to_array().tobytes()))
    return COMPRESSED + zlib.compress(pair, level=1)


def unpack(recipe: str, names: tuple[str, ...], data: bytes) -> Packed:
    """Return what was packed of a recipe over the features `names`.

    Only for bytes whose signature was verified. Raises whatever damaged bytes, or those of another recipe or version,
    bring.
    """
    pair = zlib.decompress(data[1:]) if data[:1] == COMPRESSED else data
    model, calibrator = _decode(pair)
    return Packed(load(recipe, names, model), Calibrator.from_array(np.frombuffer(calibrator)))
