"""A model's content as bytes, to compare models by: a pickle alone also tells which equal strings are one object."""

import io
import pickle

from streams.models.recipes import Model


def weights(model: Model) -> bytes:
    """Return every value in a model, and its classes, as bytes: the same for models that are the same to the bit."""
    out = io.BytesIO()
    pickler = pickle.Pickler(out, protocol=5)
    pickler.fast = True  # everything in full wherever it occurs, nothing by reference
    pickler.dump(model)
    return out.getvalue()
