"""Command-line values that several doors take, checked where they are read."""

import argparse
from collections.abc import Callable
from math import inf
from typing import TypeVar

T = TypeVar("T")


def argument(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Return `parse` as argparse wants it: what it says in a ValueError is what the user reads."""

    def checked(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return checked


def above_zero(text: str) -> float:
    """Return the number in `text`; raise ValueError where it is none, not finite or not above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number < inf:
        raise ValueError(f"'{text}': must be a number above 0")
    return number
