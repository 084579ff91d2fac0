import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from infra.local.download import Downloader
from infra.local.errors import LocalServerError
from infra.local.lock import Jar
from infra.local.ports import HOST

CONTENT = b"the jar, byte for byte" * 10_000
JAR = Jar("org.example", "thing", "1.2", "jar", "", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[str]:
    """A Maven repository on loopback that holds the one jar."""
    served = tmp_path / "served" / JAR.path
    served.parent.mkdir(parents=True)
    served.write_bytes(CONTENT)
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "served")
    with ThreadingHTTPServer((HOST, 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{HOST}:{server.server_port}"
        server.shutdown()


def test_a_jar_is_downloaded_to_its_place_and_counted(repository: str, tmp_path: Path) -> None:
    """The bytes arrive whole, at the jar's Maven path, and the progress adds up to its size."""
    seen: list[float] = []
    path = Downloader(seen.append, 1, [repository])(JAR, tmp_path / "partial")
    assert path == tmp_path / "partial" / JAR.path
    assert path.read_bytes() == CONTENT
    assert sum(seen) == JAR.size


def test_a_jar_that_no_repository_has_is_named(repository: str, tmp_path: Path) -> None:
    """The error is one line with the jar's name and the cause."""
    absent = Jar("org.example", "absent", "1", "jar", "", 1, "ab" * 32)
    with pytest.raises(LocalServerError, match=r"^absent-1\.jar: download failed \(404\)$"):
        Downloader(lambda _: None, 1, [repository])(absent, tmp_path)
