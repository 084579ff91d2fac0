"""Command-line values that several doors take, checked where they are read."""

import argparse
from collections.abc import Callable, Iterable
from math import inf
from pathlib import Path
from typing import NoReturn, TypeVar

T = TypeVar("T")

MOST = 1_000_000_000
MOST_RATE = 1_000_000.0
"""Events a second: more than any process here could send, and about as many as fit into its memory."""


def argument(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Return `parse` as argparse wants it: what it says in a ValueError is what the user reads."""

    def checked(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return checked


def spelt_out(arguments: Iterable[str], refuse: Callable[[str], NoReturn]) -> list[str]:
    """Return arguments with a file's lines for each @FILE; `refuse` is told what cannot be read or is not UTF-8."""
    found: list[str] = []
    for one in arguments:
        try:
            one.encode()  # what is not UTF-8 comes from the shell as lone surrogates
            found += Path(one[1:]).read_text(encoding="utf-8").splitlines() if one.startswith("@") else [one]
        except UnicodeError:
            refuse(f"argument {one!a}: is not UTF-8")
        except OSError as error:
            refuse(f"argument {one}: {error.strerror}")
    return found


def above_zero(text: str) -> float:
    """Return the number in `text`; raise ValueError where it is none, not finite or not above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number < inf:
        raise ValueError(f"'{text}': must be a number above 0")
    return number


def rate(text: str) -> float:
    """Return the events a second in `text`; raise ValueError where it is no number above 0, or above `MOST_RATE`."""
    number = above_zero(text)
    if number > MOST_RATE:
        raise ValueError(f"'{text}': must be {MOST_RATE:.0f} at most")
    return number


def whole(text: str, most: int = MOST) -> int:
    """Return the whole number in `text`; raise ValueError where it is none, not above 0, or above `most`."""
    digits = text if text.isascii() and text.isdecimal() and len(text) <= len(str(MOST)) else "0"
    if not 0 < int(digits) <= most:
        raise ValueError(f"'{text}': must be a whole number above 0, {most} at most")
    return int(digits)
