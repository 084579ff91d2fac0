"""`python -m infra.docker.local build`: the servers' images, from Debian and the locked jars."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from infra.docker.local.client import DockerError, built, docker, exists, refuse_silence, run, tool
from infra.docker.local.images import BASE, IMAGES, Image
from infra.local import LocalServerError

PACKAGES = "ca-certificates,passwd"


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
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        image.lay_out(Path(folder))
        built(Path(folder), image.tags)
    size = int(docker("image", "inspect", "--format", "{{.Size}}", image.tags[0])) / 1e6
    _say(", ".join(image.tags), f"{size:.0f} MB, {time.monotonic() - begin:.1f} s")


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
