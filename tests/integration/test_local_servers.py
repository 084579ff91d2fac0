import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import NewTopic

from infra.local import LocalServerError, LocalServers, Server
from infra.local.ports import HOST, free_port, is_free
from infra.local.process import ProcessId
from infra.local.valkey import Valkey
from tests.local import cassandra_session, within

pytestmark = [pytest.mark.integration, pytest.mark.local]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServers]:
    with LocalServers(tmp_path_factory.mktemp("local"), save="3600 1") as running:
        yield running


def the(servers: LocalServers, name: str) -> Server:
    return next(server for server in servers.servers if server.name == name)


def gone(pid: int) -> bool:
    """Ended, whether or not whoever inherited it has collected it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def restart_after_kill(server: Server) -> None:
    address, process = server.address, server.process_id
    server.kill()
    assert not server.alive
    server.start()
    server.wait_healthy()
    assert server.address == address
    assert server.process_id != process


def test_a_killed_kafka_comes_back_with_its_records(servers: LocalServers) -> None:
    """After SIGKILL the broker has the same port and every acknowledged record, a 2 MB one included."""
    admin = KafkaAdminClient(bootstrap_servers=servers.kafka.address)
    admin.create_topics([NewTopic("kept", num_partitions=1, replication_factor=1)])
    admin.close()
    values = [b"first", b"x" * 2_000_000]
    producer = KafkaProducer(bootstrap_servers=servers.kafka.address, acks="all", max_request_size=4_000_000)
    for value in values:
        producer.send("kept", value).get(timeout=20)
    producer.close()

    restart_after_kill(servers.kafka)

    consumer = KafkaConsumer(
        "kept", bootstrap_servers=servers.kafka.address, auto_offset_reset="earliest", consumer_timeout_ms=20_000
    )
    assert [next(consumer).value for _ in values] == values
    consumer.close()


def test_a_killed_cassandra_comes_back_with_its_rows(servers: LocalServers) -> None:
    """After SIGKILL the node has the same port and every acknowledged row."""

    def ask(*statements: str) -> list[object]:
        with cassandra_session(servers.cassandra.address) as session:
            return [list(session.execute(statement)) for statement in statements]

    ask(
        "CREATE KEYSPACE k WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}",
        "CREATE TABLE k.t (a int PRIMARY KEY, b text)",
        "INSERT INTO k.t (a, b) VALUES (1, 'kept')",
    )
    restart_after_kill(servers.cassandra)
    assert ask("SELECT b FROM k.t WHERE a = 1") == [[("kept",)]]


def test_a_stopped_valkey_keeps_its_snapshot(servers: LocalServers) -> None:
    """With a snapshot rule a clean stop saves the keys; a kill comes back to the last snapshot."""
    with redis.Redis.from_url(servers.valkey.url) as client:
        client.set("kept", "yes")
    servers.valkey.stop()
    servers.valkey.start()
    servers.valkey.wait_healthy()
    with redis.Redis.from_url(servers.valkey.url) as client:
        client.set("after", "lost")
    restart_after_kill(servers.valkey)
    with redis.Redis.from_url(servers.valkey.url) as client:
        assert client.mget("kept", "after") == [b"yes", None]


@pytest.mark.parametrize("name", ["kafka", "valkey", "cassandra"])
def test_a_server_of_another_stack_is_not_taken_for_ours(servers: LocalServers, name: str, tmp_path: Path) -> None:
    """When somebody else's server answers on our port, that is an error that names it, not health."""
    real = the(servers, name)
    ours = type(real)(tmp_path, "ours", real.port)
    ours.process_id = ProcessId(os.getpid(), psutil.Process().create_time())  # "our" process lives
    with pytest.raises(LocalServerError, match=f"{name}: port {real.port} is answered by another server"):
        ours.wait_healthy(timeout=10)


def test_the_folder_is_held_by_one_owner(servers: LocalServers) -> None:
    """Two stacks cannot write one data folder."""
    with pytest.raises(LocalServerError, match="in use"):
        LocalServers(servers.folder, ("valkey",)).start()


def test_the_context_ends_every_server(tmp_path: Path) -> None:
    """After the block no process is left and the port is free."""
    with LocalServers(tmp_path, ("valkey",)) as servers:
        process, port = servers.valkey.process_id, servers.valkey.port
        assert servers.valkey.alive
    assert process is not None
    assert not process.alive
    assert is_free(port)


def test_a_server_that_dies_while_starting_says_why(tmp_path: Path) -> None:
    """The error has the name, the exit code and the last log lines, and nothing stays."""
    servers = LocalServers(tmp_path, ("valkey",), save="nonsense")
    with pytest.raises(LocalServerError, match=r"(?s)valkey: ended, exit code 1; .*nonsense"):
        servers.start()
    assert not servers.valkey.alive


def test_a_port_in_use_is_said_before_anything_starts(tmp_path: Path) -> None:
    """An asked-for port that is taken is one line with its number."""
    port = free_port()
    with (
        socket.create_server((HOST, port)),
        pytest.raises(LocalServerError, match=f"^valkey: port {port} is already in use$"),
    ):
        LocalServers(tmp_path, ("valkey",), ports={"valkey": port}).start()


def test_a_server_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    """Only the death of the process ends it, not that of a thread."""
    server = Valkey(tmp_path, "ours")
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    try:
        server.wait_healthy()
        assert not within(0.3, lambda: not server.alive)
    finally:
        server.kill()


OWNER = """
import pathlib, sys, time
from infra.local import LocalServers
with LocalServers(pathlib.Path(sys.argv[1]), ("valkey",)) as servers:
    print(servers.valkey.process_id.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's parent-death signal")
def test_servers_die_with_a_killed_owner(tmp_path: Path) -> None:
    """`kill -9` of the owner leaves no server behind."""
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert not gone(pid)
        owner.send_signal(signal.SIGKILL)
    assert within(5, lambda: gone(pid))


def cli(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "infra.local", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_up_status_down(tmp_path: Path) -> None:
    """`up` leaves the server running and a second `up` finds it; `down` leaves nothing."""
    data = ("--data", str(tmp_path))
    try:
        first, second = cli("up", "--only", "valkey", *data), cli("up", "--only", "valkey", *data)
        assert (first.returncode, second.returncode) == (0, 0)
        assert "ready in" in first.stdout
        assert "already running" in second.stdout
        assert first.stdout.splitlines()[-1] == second.stdout.splitlines()[-1]
        assert cli("status", *data).returncode == 0
        pid = int(first.stdout.split("(pid ")[1].split(",")[0])
        assert not gone(pid)
    finally:
        last = cli("down", *data)
    assert last.returncode == 0
    assert gone(pid)
    assert not (tmp_path / "servers.json").exists()
    assert cli("status", *data).returncode == 1


def test_up_names_a_port_in_use(tmp_path: Path) -> None:
    """The command line says it in one line and fails."""
    port = free_port()
    with socket.create_server((HOST, port)):
        result = cli("up", "--only", "valkey", "--valkey-port", str(port), "--data", str(tmp_path))
    assert result.returncode == 1
    assert result.stderr == f"error: valkey: port {port} is already in use\n"
