"""Docker's command line: found, and asked; what it cannot do is said in one line."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

BUILDKIT = {"DOCKER_BUILDKIT": "1"}
ANSWER_SECONDS, BUILD_SECONDS = 20, 1200
TOLD_LINES = 12


class DockerError(Exception):
    """Docker or a tool is missing, does not answer, or could not do it; the first line says which."""


def run(*command: str, timeout: float = BUILD_SECONDS) -> str:
    """Return what a command prints; raise DockerError with its last lines where it fails."""
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **BUILDKIT},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DockerError(f"{command[0]} {command[1]}: no end after {timeout:.0f} s") from None
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()][-TOLD_LINES:]
        raise DockerError("\n  ".join([f"{' '.join(command[:2])} failed:", *lines]))
    return done.stdout


def docker(*arguments: str, timeout: float = BUILD_SECONDS) -> str:
    """Return what `docker arguments…` prints. Raises DockerError."""
    return run(_docker(), *arguments, timeout=timeout)


def refuse_silence() -> None:
    """Raise DockerError unless an engine answers."""
    client = _docker()
    try:
        run(client, "version", "--format", "{{.Server.Version}}", timeout=ANSWER_SECONDS)
    except DockerError as error:
        why = str(error).splitlines()[-1].strip()
        raise DockerError(f"Docker does not answer: {why}") from None


def tool(name: str, what_for: str) -> str:
    """Return where a tool is; raise DockerError that says what it is needed for."""
    path = shutil.which(name)
    if path is None:
        raise DockerError(f"{name} is not installed; it is needed for {what_for}")
    return path


def exists(image: str) -> bool:
    """Say whether an image is on this machine."""
    return bool(docker("images", "--quiet", image).strip())


def built(folder: Path, tags: Sequence[str], *options: str) -> None:
    """Build the image of `folder`/Dockerfile and give it its names. Raises DockerError."""
    named = [word for tag in tags for word in ("--tag", tag)]
    docker("build", "--quiet", *named, *options, str(folder))


@cache
def _docker() -> str:
    """The first client on the PATH that can build with mounts: newer ones need a plugin for it."""
    for client in _clients():
        done = subprocess.run(
            [client, "build", "--help"], env={**os.environ, **BUILDKIT}, capture_output=True, text=True, check=False
        )
        if "--secret" in done.stdout:
            return client
    raise DockerError("no docker command with BuildKit on the PATH (install docker, or its buildx plugin)")


def _clients() -> Iterator[str]:
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        if found := shutil.which("docker", path=folder):
            yield found
