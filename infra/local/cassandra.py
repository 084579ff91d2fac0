"""Apache Cassandra: one node."""

import os
import tempfile
from pathlib import Path

from .cql import cluster_name
from .java import jars, java
from .ports import HOST, free_port
from .server import Server

# From Cassandra's own jvm17-server.options.
ADD_EXPORTS = (
    "java.base/jdk.internal.misc",
    "java.base/java.lang.ref",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.sql/java.sql",
    "jdk.attach/sun.tools.attach",
    "jdk.unsupported/sun.misc",
)
ADD_OPENS = (
    "java.base/java.io",
    "java.base/java.lang",
    "java.base/java.lang.module",
    "java.base/java.lang.reflect",
    "java.base/java.util",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.util.jar",
    "java.base/sun.nio.ch",
    "jdk.management/com.sun.management.internal",
)

LOGBACK = """\
<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%date %level %msg \\(%logger{0}\\)%n%ex</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="out"/></root>
  <logger name="org.apache.cassandra.service" level="INFO"/>
  <logger name="org.apache.cassandra.service.CassandraDaemon" level="WARN"/>
</configuration>
"""


def render_config(port: int, storage_port: int, cluster: str, data: Path, direct: bool = True) -> str:
    """The text of cassandra.yaml for a single node without authentication; `direct` as `direct_io` says."""
    settings = {
        "cluster_name": f"'{cluster}'",
        "num_tokens": 1,
        "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
        "endpoint_snitch": "SimpleSnitch",
        "seed_provider": "[{class_name: org.apache.cassandra.locator.SimpleSeedProvider, "
        f'parameters: [{{seeds: "{HOST}:{storage_port}"}}]}}]',
        "listen_address": HOST,
        "storage_port": storage_port,
        "ssl_storage_port": storage_port,
        "rpc_address": HOST,
        "start_native_transport": "true",
        "native_transport_port": port,
        "data_file_directories": f"['{data}/data']",
        "commitlog_directory": f"'{data}/commitlog'",
        "saved_caches_directory": f"'{data}/saved_caches'",
        "hints_directory": f"'{data}/hints'",
        "cdc_raw_directory": f"'{data}/cdc_raw'",
        # A row is acknowledged when its log is synced. "periodic", the default, lost up to 10 s of acknowledged rows
        # at a kill -9: replay ends at the last sync.
        "commitlog_sync": "batch",
        # Without the page cache where that can be: as mapped memory the log's pages are dropped at each sync, and read
        # again for the next row. "auto" looks at the block size alone, and cannot start where files refuse it.
        "commitlog_disk_access_mode": "auto" if direct else "legacy",
        "commitlog_segment_size": "16MiB",
        "commitlog_total_space": "256MiB",
        "memtable_heap_space": "96MiB",
        "memtable_offheap_space": "96MiB",
        "key_cache_size": "16MiB",
        "networking_cache_size": "32MiB",
        "file_cache_size": "64MiB",
        "concurrent_compactors": 1,
        "concurrent_reads": 16,
        "concurrent_writes": 64,
        "auto_snapshot": "false",
        # Two seconds by default: less than a busy laptop may take.
        "write_request_timeout": "10s",
        "read_request_timeout": "10s",
        "batch_size_warn_threshold": "256KiB",  # a partition's rows travel in one unlogged batch
        "batch_size_fail_threshold": "4MiB",
    }
    return "".join(f"{name}: {value}\n" for name, value in settings.items())


def direct_io(folder: Path) -> bool:
    """Whether files in a folder can be written past the page cache: on tmpfs not before Linux 6.6."""
    with tempfile.NamedTemporaryFile(dir=folder) as probe:
        try:
            os.close(os.open(probe.name, os.O_WRONLY | getattr(os, "O_DIRECT", 0)))  # macOS has another way
        except OSError:
            return False
    return True


class Cassandra(Server):
    """One Cassandra node; `identity` is its cluster's name."""

    name = "cassandra"
    stop_timeout = 20.0

    def prepare(self) -> list[str]:
        """Write cassandra.yaml and logback.xml."""
        (self.folder / "cassandra.yaml").write_text(self.config(), encoding="utf-8")
        (self.folder / "logback.xml").write_text(LOGBACK, encoding="utf-8")
        command = java(self.name, self.folder, *self.options(), lasting=self.lasting)
        return [*command, "org.apache.cassandra.service.CassandraDaemon"]

    def config(self) -> str:
        """The text of cassandra.yaml."""
        return render_config(self.port, free_port(), self.identity, self.folder, direct_io(self.folder))

    def answering(self) -> str | None:
        """The name of the cluster that answers."""
        return cluster_name(self.port)

    def options(self) -> list[str]:
        """What the Java runtime is started with."""
        agent = next(path for path in jars(self.name) if path.name.startswith("jamm-"))
        return ["-Xms256m", "-Xmx512m", *java_options(agent, self.folder, self.folder)]


def java_options(agent: Path, config: Path, data: Path) -> list[str]:
    """The options that Cassandra needs of Java: `agent` is the jamm jar, `config` the folder of its two files."""
    properties = {
        "cassandra.config": (config / "cassandra.yaml").as_uri(),
        "cassandra.storagedir": data,
        "cassandra-foreground": "yes",
        "logback.configurationFile": config / "logback.xml",
        "cassandra.ring_delay_ms": 0,
        "cassandra.skip_wait_for_gossip_to_settle": 0,
        "cassandra.shutdown_announce_in_ms": 0,
        "jdk.attach.allowAttachSelf": "true",
        "java.net.preferIPv4Stack": "true",
        "io.netty.tryReflectionSetAccessible": "true",
        "chronicle.analytics.disable": "true",
        "chronicle.announcer.disable": "true",
    }
    return [
        "-Xss256k", "-XX:+UseSerialGC", "-XX:MaxDirectMemorySize=256m",
        "-XX:+ExitOnOutOfMemoryError", f"-javaagent:{agent}",
        *(f"--add-exports={package}=ALL-UNNAMED" for package in ADD_EXPORTS),
        *(f"--add-opens={package}=ALL-UNNAMED" for package in ADD_OPENS),
        *(f"-D{name}={value}" for name, value in properties.items()),
    ]  # fmt: skip
