"""The lock files: which jars a server is made of, and the SHA-256 of each.

One line a jar, `sha256  size  group:artifact:packaging[:classifier]:version`, in class-path order. `python -m
infra.local.lock` resolves the roots anew with jgo and rewrites the files.
"""

import hashlib
import re
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .errors import LocalServerError

# The trailing "!" keeps each root's own versions: without it log4j's BOM would downgrade kafka-clients.
ROOTS = {
    "kafka": (
        "org.apache.kafka:kafka_2.13:4.3.1!",
        "org.apache.logging.log4j:log4j-slf4j-impl:2.25.3!",
        "org.apache.logging.log4j:log4j-core:2.25.3!",
        "org.apache.logging.log4j:log4j-1.2-api:2.25.3!",
    ),
    "cassandra": ("org.apache.cassandra:cassandra-all:5.0.9!",),
}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COORDINATE = re.compile(r"[\w.-]+(:[\w.-]+){3,4}")


@dataclass(frozen=True, slots=True)
class Jar:
    """One locked jar; `size` in bytes, `sha256` in lower-case hex."""

    group: str
    artifact: str
    version: str
    packaging: str
    classifier: str
    size: int
    sha256: str

    @property
    def filename(self) -> str:
        """The file's name in any Maven repository."""
        classifier = f"-{self.classifier}" if self.classifier else ""
        return f"{self.artifact}-{self.version}{classifier}.{self.packaging}"

    @property
    def path(self) -> PurePosixPath:
        """The file's place below the root of any Maven repository."""
        return PurePosixPath(*self.group.split("."), self.artifact, self.version, self.filename)

    @property
    def line(self) -> str:
        """The jar as a line of a lock file."""
        names = (self.group, self.artifact, self.packaging, self.classifier, self.version)
        return f"{self.sha256}  {self.size}  {':'.join(name for name in names if name)}"


def parse_line(line: str) -> Jar:
    """Read one line of a lock file; ValueError if it is not one."""
    fields = line.split()
    if len(fields) != 3 or not _SHA256.fullmatch(fields[0]) or not _COORDINATE.fullmatch(fields[2]):
        raise ValueError(f"not a locked jar: {line!r}")
    group, artifact, packaging, *classifier, version = fields[2].split(":")
    return Jar(group, artifact, version, packaging, "".join(classifier), int(fields[1]), fields[0])


def lock_path(server: str) -> Path:
    """Where the lock file of a server is."""
    return Path(__file__).with_name(f"{server}.lock")


def read_lock(server: str) -> list[Jar]:
    """The jars of a server, in class-path order."""
    lines = lock_path(server).read_text(encoding="utf-8").splitlines()
    return [parse_line(line) for line in lines if line and not line.startswith("#")]


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(path: Path, jar: Jar) -> None:
    """Refuse a file that is not, byte for byte, the locked jar."""
    actual = sha256_of(path)
    if actual != jar.sha256:
        raise LocalServerError(f"{jar.filename}: SHA-256 is {actual}, the lock file says {jar.sha256}")


def resolve(server: str, repository: Path) -> list[Jar]:
    """Resolve a server's roots with jgo, downloading into `repository`, and hash what came."""
    from jgo.maven import MavenContext  # noqa: PLC0415 - half a second, for this alone

    context = MavenContext(repo_cache=repository)
    roots = [context.create_dependency(root) for root in ROOTS[server]]
    inputs, transitive = context.resolver.resolve(roots)
    needed = [*inputs, *(dep for dep in transitive if dep.scope in ("compile", "runtime"))]
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(_lock, (dep.artifact for dep in needed)))


def _lock(artifact: Any) -> Jar:
    path = Path(artifact.resolve())
    return Jar(
        artifact.groupId,
        artifact.artifactId,
        artifact.version,
        artifact.packaging,
        artifact.classifier,
        path.stat().st_size,
        sha256_of(path),
    )


def main() -> int:
    """Rewrite every lock file from its roots."""
    with tempfile.TemporaryDirectory() as folder:
        for server, roots in ROOTS.items():
            jars = resolve(server, Path(folder))
            head = ["# python -m infra.local.lock", *(f"# {root}" for root in roots)]
            lock_path(server).write_text("\n".join([*head, *(jar.line for jar in jars), ""]), encoding="utf-8")
            print(f"{lock_path(server).name}: {len(jars)} jars, {sum(jar.size for jar in jars) / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
