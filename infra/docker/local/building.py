"""How the images are built; what has not changed costs next to nothing. All raise DockerError."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from infra.docker.env import LOCAL_IMAGES
from infra.docker.local.client import built, docker, exists, run, tool
from infra.docker.local.images import BASE, Image

PACKAGES = "ca-certificates,passwd"
ROOT = Path(__file__).parents[3]
OURS, PYTHON = "headrace:local", LOCAL_IMAGES["PYTHON_IMAGE"]
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


def debian() -> None:
    """The base of all the others, once."""
    if exists(BASE):
        return
    mmdebstrap = tool("mmdebstrap", f"{BASE}, from which the images are built (apt-get install mmdebstrap)")
    with tempfile.TemporaryDirectory() as folder:
        archive = str(Path(folder, "debian.tar"))
        unread = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info")]
        run(mmdebstrap, "--quiet", "--variant=minbase", f"--include={PACKAGES}", *unread, "bookworm", archive)
        docker("import", "--change", 'CMD ["bash"]', archive, BASE)
    _say(BASE, "imported")


def server(image: Image) -> None:
    """An image of a server, or one that others stand on."""
    with tempfile.TemporaryDirectory() as folder, _timed(image.tags):
        image.lay_out(Path(folder))
        built(Path(folder), image.tags)


def services() -> None:
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
