"""What commands say on a terminal, and how they leave it."""

import os
import sys
from datetime import UTC, datetime


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


def leave_closed_pipe() -> None:
    """Write to nobody from now on: who read our output (`| head`) has enough, and the interpreter would flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
