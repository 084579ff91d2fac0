"""Hop rows, compared."""

from dataclasses import fields

from streams.runtime.hop import HopRows


def same(ours: HopRows, theirs: HopRows) -> bool:
    """Bit for bit, so NaN equals itself and -0.0 is not 0.0."""
    arrays = [field.name for field in fields(HopRows) if field.name != "texts"]
    return ours.texts == theirs.texts and all(
        getattr(ours, name).tobytes() == getattr(theirs, name).tobytes() for name in arrays
    )
