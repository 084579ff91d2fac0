"""`python -m tests.engines images`: get the images of the containers; `… sweep`: remove what a dead run has left."""

import sys

from . import images
from .containers import sweep


def main(command: str) -> None:
    """Do it."""
    if command == "images":
        images.provide()
    elif client := images.engine():
        sweep(client)


if __name__ == "__main__":
    if sys.argv[1:] not in (["images"], ["sweep"]):
        sys.exit("usage: python -m tests.engines images|sweep")
    main(sys.argv[1])
