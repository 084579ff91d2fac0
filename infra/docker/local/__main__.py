"""`python -m infra.docker.local build`: all images of docker-compose.yml, on this machine, pulling none."""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from infra.docker.env import LOCAL_IMAGES
from infra.docker.local.client import DockerError, built, docker, exists, refuse_silence, run, tool
from infra.docker.local.images import BASE, IMAGES, Image
from infra.local import LocalServerError

PACKAGES = "ca-certificates,passwd"
ROOT = Path(__file__).parents[3]
OURS, PYTHON = "headrace:local", LOCAL_IMAGES["PYTHON_IMAGE"]
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 0 if it did what it says."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (DockerError, LocalServerError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def build(_: argparse.Namespace) -> None:
    """Build the images that are not there or have changed."""
    refuse_silence()
    _debian()
    for image in IMAGES:
        _build(image)
    _ours()


def _debian() -> None:
    if exists(BASE):
        return
    mmdebstrap = tool("mmdebstrap", f"{BASE}, from which the images are built (apt-get install mmdebstrap)")
    with tempfile.TemporaryDirectory() as folder:
        archive = str(Path(folder, "debian.tar"))
        unread = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info")]
        run(mmdebstrap, "--quiet", "--variant=minbase", f"--include={PACKAGES}", *unread, "bookworm", archive)
        docker("import", "--change", 'CMD ["bash"]', archive, BASE)
    _say(BASE, "imported")


def _build(image: Image) -> None:
    with tempfile.TemporaryDirectory() as folder, _timed(image.tags):
        image.lay_out(Path(folder))
        built(Path(folder), image.tags)


def _ours() -> None:
    """The services' image, as compose would build it but from the Python that was built here."""
    options = ["--file", str(ROOT / "infra/docker/Dockerfile"), "--build-arg", f"PYTHON_IMAGE={PYTHON}"]
    if AUTHORITIES.exists():  # downloads may come through a proxy that only this machine knows
        options += ["--secret", f"id=ca,src={AUTHORITIES}"]
    with _timed((OURS,)):
        built(ROOT, (OURS,), *options)


@contextmanager
def _timed(tags: Sequence[str]) -> Iterator[None]:
    begin = time.monotonic()
    yield
    size = int(docker("image", "inspect", "--format", "{{.Size}}", tags[0])) / 1e6
    _say(", ".join(tags), f"{size:.0f} MB, {time.monotonic() - begin:.1f} s")


def _say(what: str, how: str) -> None:
    print(f"{what:<70} {how}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.docker.local", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="build")
    command = commands.add_parser("build", help=build.__doc__)
    command.set_defaults(run=build)
    return parser


if __name__ == "__main__":
    sys.exit(main())
