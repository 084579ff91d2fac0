import hashlib
from pathlib import Path

import pytest

from infra.local.errors import LocalServerError
from infra.local.jars import cache_folder, missing_from, place
from infra.local.lock import Jar

CONTENT = b"the jar, byte for byte"
JAR = Jar("org.example", "thing", "1.2", "jar", "", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


def write(content: bytes, folder: Path) -> Path:
    path = folder / JAR.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_good_download_is_placed_in_the_cache(tmp_path: Path) -> None:
    """After `place` the cache holds the jar and the partial folder does not."""
    cache, partial = tmp_path / "cache", tmp_path / "partial"
    place(JAR, cache, partial, lambda _jar, folder: write(CONTENT, folder))
    assert (cache / JAR.path).read_bytes() == CONTENT
    assert not (partial / JAR.path).exists()
    assert missing_from(cache, [JAR]) == []


def test_a_download_with_a_flipped_byte_never_reaches_the_cache(tmp_path: Path) -> None:
    """What does not match the lock is refused before it is moved."""
    cache, flipped = tmp_path / "cache", bytes([CONTENT[0] ^ 1]) + CONTENT[1:]
    with pytest.raises(LocalServerError, match="lock file says"):
        place(JAR, cache, tmp_path / "partial", lambda _jar, folder: write(flipped, folder))
    assert not (cache / JAR.path).exists()


def test_a_cached_jar_that_was_damaged_counts_as_missing(tmp_path: Path) -> None:
    """The cache is verified too: an absent, cut or flipped jar is brought anew."""
    assert missing_from(tmp_path, [JAR]) == [JAR]
    path = write(CONTENT, tmp_path)
    assert missing_from(tmp_path, [JAR]) == []
    for damaged in (CONTENT[:-1], CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])):
        path.write_bytes(damaged)
        assert missing_from(tmp_path, [JAR]) == [JAR]


def test_the_cache_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HEADRACE_CACHE is the cache if set, XDG_CACHE_HOME its parent otherwise."""
    monkeypatch.delenv("HEADRACE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "headrace"
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere"
