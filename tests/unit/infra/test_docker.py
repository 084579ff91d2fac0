from pathlib import Path

import pytest

from infra.docker.local import client
from infra.docker.local.__main__ import main
from infra.docker.local.images import IMAGES


@pytest.fixture(autouse=True)
def _found_anew() -> None:
    client._docker.cache_clear()


def a_command(folder: Path, name: str, says: str) -> None:
    """An executable that does what a line of shell says."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{says}\n")
    (folder / name).chmod(0o755)


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """What `build` says where it can build nothing."""
    assert main(["build"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


def test_no_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the command one line says what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refusal(capsys) == (
        "error: no docker command with BuildKit on the PATH (install docker, or its buildx plugin)\n"
    )


def test_the_client_that_can_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two clients the first that can build with mounts is taken, not the first."""
    a_command(tmp_path / "new", "docker", "echo BuildKit is enabled but the buildx component is missing >&2; exit 1")
    a_command(tmp_path / "old", "docker", '[ "$1" = build ] && echo "--secret stringArray" || echo 20.10')
    monkeypatch.setenv("PATH", f"{tmp_path}/new:{tmp_path}/old")
    assert client.docker("version").strip() == "20.10"


def test_a_silent_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An engine that does not answer is one line with the client's own reason."""
    a_command(tmp_path, "docker", '[ "$1" = build ] && echo --secret || { echo Cannot connect to X >&2; exit 1; }')
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refusal(capsys) == "error: Docker does not answer: Cannot connect to X\n"


def test_a_missing_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing is built yet and mmdebstrap is not installed, a line names it and what it is for."""
    a_command(tmp_path, "docker", '[ "$1" != build ] || echo --secret')
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refusal(capsys).startswith("error: mmdebstrap is not installed; it is needed for local/debian:bookworm")


def test_images_name_their_base() -> None:
    """Each image has its Dockerfile, which starts from one that was built before it."""
    known = {"local/debian:bookworm"}
    for image in IMAGES:
        text = (Path(client.__file__).parent / image.name / "Dockerfile").read_text()
        (base,) = [line.split()[1] for line in text.splitlines() if line.startswith("FROM ")]
        assert base in known
        known |= set(image.tags)
