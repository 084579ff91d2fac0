import hashlib
from pathlib import Path

import pytest

from infra.local.errors import LocalServerError
from infra.local.lock import ROOTS, Jar, lock_path, parse_line, read_lock, verify

CONTENT = b"the jar, byte for byte"
JAR = Jar("org.example", "thing", "1.2", "jar", "", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


def test_a_jar_survives_its_line() -> None:
    """A lock line read back is the jar that wrote it, with and without a classifier."""
    native = Jar("org.example", "thing", "1.2", "jar", "linux-x86_64", 5, "ab" * 32)
    assert parse_line(JAR.line) == JAR
    assert parse_line(native.line) == native


def test_a_jar_knows_its_place_in_a_maven_repository() -> None:
    """Path and file name follow the Maven layout."""
    native = Jar("org.example", "thing", "1.2", "jar", "linux-x86_64", 5, "ab" * 32)
    assert str(JAR.path) == "org/example/thing/1.2/thing-1.2.jar"
    assert native.filename == "thing-1.2-linux-x86_64.jar"


@pytest.mark.parametrize(
    "line",
    ["", "abc 12 g:a:jar:1", f"{'a' * 64} 12 g:a", f"{'a' * 64} many g:a:jar:1", f"{'a' * 64} 12 g:a:jar:1 more"],
)
def test_a_line_that_is_no_jar_is_refused(line: str) -> None:
    """A damaged lock file is an error, not a shorter class path."""
    with pytest.raises(ValueError, match=r"locked jar|invalid literal"):
        parse_line(line)


def test_a_flipped_byte_is_refused(tmp_path: Path) -> None:
    """A file that differs in one bit from the locked jar is refused by name; the right one passes."""
    path = tmp_path / "thing.jar"
    path.write_bytes(CONTENT)
    verify(path, JAR)
    path.write_bytes(bytes([CONTENT[0] ^ 1]) + CONTENT[1:])
    with pytest.raises(LocalServerError, match=r"thing-1\.2\.jar: SHA-256"):
        verify(path, JAR)


@pytest.mark.parametrize("server", ROOTS)
def test_the_lock_files_hold_their_roots(server: str) -> None:
    """Each committed lock names the roots in their versions, and no jar twice."""
    jars = read_lock(server)
    locked = {f"{jar.group}:{jar.artifact}:{jar.version}!" for jar in jars}
    assert set(ROOTS[server]) <= locked
    assert len({jar.path for jar in jars}) == len(jars)


@pytest.mark.parametrize("server", ROOTS)
def test_the_lock_files_name_no_download_address(server: str) -> None:
    """Where jars come from is the machine's own affair."""
    assert "://" not in lock_path(server).read_text(encoding="utf-8")
