"""The locked jars on this machine: downloaded once for a user, verified on every use."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from .errors import LocalServerError
from .lock import Jar, read_lock, verify

DOWNLOADS_AT_ONCE = 16

Download = Callable[[Jar, Path], Path]


def cache_folder() -> Path:
    """The folder that every clone of this user shares; HEADRACE_CACHE moves it."""
    told = os.environ.get("HEADRACE_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(told) if told else base / "headrace"


def fetch(servers: Iterable[str], progress: bool = False) -> dict[str, list[Path]]:
    """The verified class path of each server, after downloading what is missing or damaged."""
    locks = {server: read_lock(server) for server in servers}
    cache = cache_folder() / "jars"
    wanted = {jar.path: jar for jars in locks.values() for jar in jars}.values()
    if missing_from(cache, wanted):
        cache.mkdir(parents=True, exist_ok=True)
        with exclusive(cache / ".lock"):
            # Asked again: another process may have brought them while this one waited.
            _bring(missing_from(cache, wanted), cache, progress)
    return {server: [cache / jar.path for jar in jars] for server, jars in locks.items()}


def missing_from(cache: Path, jars: Iterable[Jar]) -> list[Jar]:
    """Those of the jars that are not in the cache, byte for byte."""
    return [jar for jar in jars if not _intact(cache / jar.path, jar)]


def place(jar: Jar, cache: Path, partial: Path, download: Download) -> None:
    """Download a jar into `partial`, verify it, and only then move it into the cache, in one step."""
    arrived = download(jar, partial)
    verify(arrived, jar)
    target = cache / jar.path
    target.parent.mkdir(parents=True, exist_ok=True)
    arrived.replace(target)


def _intact(path: Path, jar: Jar) -> bool:
    try:
        verify(path, jar)
    except (OSError, LocalServerError):
        return False
    return True


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Be the only process inside the block; others wait."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _bring(missing: list[Jar], cache: Path, progress: bool) -> None:
    from .download import Downloader  # noqa: PLC0415 - half a second for jgo, on the first run only

    partial = cache / ".partial"  # ours alone, under the lock
    size = sum(jar.size for jar in missing)
    with (
        tqdm(total=size, desc="Server jars", unit="B", unit_scale=True, disable=not progress) as bar,
        ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool,
    ):
        download = Downloader(bar.update, DOWNLOADS_AT_ONCE)
        largest_first = sorted(missing, key=lambda jar: -jar.size)
        placed = [pool.submit(place, jar, cache, partial, download) for jar in largest_first]
        try:
            for job in placed:
                job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    shutil.rmtree(partial, ignore_errors=True)
