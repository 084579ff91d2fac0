"""`python -m infra.docker.certificates`: what docker-compose.secure.yml mounts, made anew, by an authority made anew.

The authority's own key is kept nowhere. Servers read their keys as users of their own, whose numbers differ from image
to image; so the files are open to all, in a folder that on this machine only its owner enters.
"""

import argparse
import sys
from datetime import timedelta
from pathlib import Path

from infra.local.certificates import ADMIN, Authority

FOLDER = "certificates"
SERVERS = ("kafka", "valkey", "cassandra")
VALID = timedelta(days=365)


def main(arguments: list[str] | None = None) -> int:
    """Write them, over those that are there."""
    folder = _parser().parse_args(arguments).folder
    write(folder)
    print(f"{folder}: new certificates, valid for {VALID.days} days; docker compose up --force-recreate takes them")
    return 0


def write(folder: Path, valid: timedelta = VALID) -> None:
    """Write the authority's certificate, and a key with a certificate for each server and for the administrator."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # the keys in it can be read by whichever user a container has
    authority = Authority.made(folder, valid=VALID)
    for name in (*SERVERS, ADMIN):
        # A container is reached by its service's name, from itself as localhost, from this machine by address.
        authority.issue(name, valid, [name, "localhost"]).chmod(0o644)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.docker.certificates", description=__doc__)
    default = Path(__file__).parents[2] / FOLDER
    parser.add_argument("folder", nargs="?", type=Path, default=default, help=f"default: {FOLDER} at the project root")
    return parser


if __name__ == "__main__":
    sys.exit(main())
