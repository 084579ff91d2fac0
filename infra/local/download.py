"""Jars over the network, through jgo and from the repository that jgo has by default."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jgo.maven import MavenContext, PythonResolver
from requests import RequestException

from .errors import LocalServerError
from .lock import Jar

ATTEMPTS = 3
TIMEOUT = 30  # seconds without a byte

log = logging.getLogger(__name__)


def downloader(advance: Callable[[int], None]) -> Callable[[Jar, Path], Path]:
    """A function that downloads a jar into a folder; `advance(bytes)` is called as they come in."""

    @contextmanager
    def follow(_filename: str, _size: int) -> Iterator[Callable[[int], None]]:
        yield advance

    resolver = PythonResolver(progress_callback=follow)

    def download(jar: Jar, folder: Path) -> Path:
        context = MavenContext(resolver=resolver, repo_cache=folder, timeout=TIMEOUT)
        component = context.project(jar.group, jar.artifact).at_version(jar.version)
        artifact = component.artifact(jar.classifier, jar.packaging)
        target = folder / jar.path
        for attempt in range(1, ATTEMPTS + 1):
            target.unlink(missing_ok=True)  # what an attempt that was cut off has left
            try:
                resolver.download(artifact)
            except (RequestException, RuntimeError) as error:
                log.debug("%s: attempt %d: %s", jar.filename, attempt, error)
                cause = type(error).__name__ if isinstance(error, RequestException) else "not in the repository"
            else:
                return target
        raise LocalServerError(f"{jar.filename}: download failed {ATTEMPTS} times ({cause})")

    return download
