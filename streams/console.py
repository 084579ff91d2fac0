"""What commands say on a terminal, and how they leave it."""

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from typing import ParamSpec

P = ParamSpec("P")


def printable(text: str) -> str:
    r"""Return text without anything that a terminal would obey.

    >>> print(printable("a\x1b[2Jb\n"))
    a\x1b[2Jb\n
    """
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def moment(time: int) -> str:
    """Return epoch milliseconds as date and time, UTC, or as they are where no calendar reaches."""
    try:
        return datetime.fromtimestamp(time // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(time)


def refuse(error: Exception, code: int) -> int:
    """Say on stderr why nothing was done, in one line, and return the exit code."""
    print(f"error: {error}", file=sys.stderr)
    return code


def ends_quietly(main: Callable[P, int]) -> Callable[P, int]:
    """Have a command end without a traceback by Ctrl-C (130) and where nobody reads on what it says (`| head`)."""

    @wraps(main)
    def ended(*args: P.args, **kwargs: P.kwargs) -> int:
        code = 0
        try:
            code = main(*args, **kwargs)
            sys.stdout.flush()
        except BrokenPipeError:
            leave_closed_pipe()
        except KeyboardInterrupt:
            return 130
        return code

    return ended


def leave_closed_pipe() -> None:
    """Write to nobody from now on: who read our output (`| head`) has enough, and the interpreter would flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
