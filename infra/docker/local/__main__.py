"""`python -m infra.docker.local build`: all images of docker-compose.yml, on this machine, pulling none."""

import argparse
import sys

from infra.docker.local.building import debian, server, services
from infra.docker.local.client import DockerError, refuse_silence
from infra.docker.local.images import IMAGES
from infra.local import LocalServerError


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
    debian()
    for image in IMAGES:
        server(image)
    services()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.docker.local", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="build")
    command = commands.add_parser("build", help=build.__doc__)
    command.set_defaults(run=build)
    return parser


if __name__ == "__main__":
    sys.exit(main())
