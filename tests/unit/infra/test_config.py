import errno
import os
from pathlib import Path
from typing import Any

import pytest

from infra.local import cassandra, kafka, valkey
from infra.local.cluster import Broker, KafkaCluster, Member

DATA = Path("/some where/data")


def properties(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def test_kafka_is_a_single_loopback_node() -> None:
    """Broker and controller listen on loopback, on the ports given, and the quorum is the controller's port."""
    settings = properties(kafka.render_config(20001, 20002, DATA))
    assert settings["listeners"] == "BROKER://127.0.0.1:20001,CONTROLLER://127.0.0.1:20002"
    assert settings["controller.quorum.voters"] == "1@127.0.0.1:20002"
    assert settings["log.dirs"] == "/some where/data"


def test_kafka_makes_no_topic_by_itself_and_waits_for_nobody() -> None:
    """Topics come from the catalogue only; a group starts at once; a 2 MB value is accepted."""
    settings = properties(kafka.render_config(20001, 20002, DATA))
    assert settings["auto.create.topics.enable"] == "false"
    assert settings["group.initial.rebalance.delay.ms"] == "0"
    assert int(settings["message.max.bytes"]) >= 2 * 2**20
    factors = [value for name, value in settings.items() if name.endswith("replication.factor")]
    assert set(factors) == {"1"}


def test_brokers_are_one_quorum_and_keep_everything(tmp_path: Path) -> None:
    """Each broker's controller is a voter, whatever it is asked to keep all keep, and two of three must have it."""
    voters = {1: 20001, 2: 20002, 3: 20003}
    settings = properties(Broker(tmp_path, "id", 2, voters).properties(DATA))
    assert settings["node.id"] == "2"
    assert settings["listeners"].endswith("CONTROLLER://127.0.0.1:20002")
    assert settings["controller.quorum.voters"] == "1@127.0.0.1:20001,2@127.0.0.1:20002,3@127.0.0.1:20003"
    assert settings["default.replication.factor"] == settings["offsets.topic.replication.factor"] == "3"
    assert settings["min.insync.replicas"] == "2"


def test_brokers_have_folders_ports_and_one_cluster_id(tmp_path: Path) -> None:
    """Three brokers of one cluster share nothing else; the address names them all."""
    cluster = KafkaCluster(tmp_path)
    assert len({broker.folder for broker in cluster.members}) == 3
    assert len({broker.identity for broker in cluster.members}) == 1
    assert cluster.address == ",".join(f"127.0.0.1:{broker.port}" for broker in cluster.members)


def test_a_master_that_is_gone_stops_no_other(tmp_path: Path) -> None:
    """Valkeys of a cluster serve their slots whoever else is there, and keep no more than a single one."""
    lines = Member(tmp_path, "", 1).settings().splitlines()
    assert {"cluster-enabled yes", "cluster-require-full-coverage no", "appendonly no", 'save ""'} <= set(lines)


def test_valkey_keeps_nothing_unless_asked() -> None:
    """No append-only file and no snapshots by default; `save` turns snapshots on."""
    lines = valkey.render_config(20003, DATA).splitlines()
    assert {"bind 127.0.0.1", "port 20003", "appendonly no", 'save ""', 'dir "/some where/data"'} <= set(lines)
    assert 'save "60 1"' in valkey.render_config(20003, DATA, save="60 1").splitlines()


def test_cassandra_is_a_single_loopback_node() -> None:
    """Every address is loopback, the node is its own seed, and every folder is below the data folder."""
    settings = dict(line.split(": ", 1) for line in cassandra.render_config(20004, 20005, "ours", DATA).splitlines())
    assert settings["cluster_name"] == "'ours'"
    assert settings["listen_address"] == settings["rpc_address"] == "127.0.0.1"
    assert (settings["native_transport_port"], settings["storage_port"]) == ("20004", "20005")
    assert 'seeds: "127.0.0.1:20005"' in settings["seed_provider"]
    folders = [value for name, value in settings.items() if "director" in name]
    assert len(folders) == 5
    assert all("/some where/data/" in folder for folder in folders)


def test_cassandra_starts_where_there_is_no_direct_io(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its log is mapped into memory on a file system that refuses to open files without the page cache."""
    real = os.open

    def refusing(path: Any, flags: int, *mode: Any, **options: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(path, flags, *mode, **options)

    server = cassandra.Cassandra(tmp_path, "ours")
    server.folder.mkdir()
    monkeypatch.setattr(os, "O_DIRECT", 0o40000, raising=False)
    monkeypatch.setattr(os, "open", refusing)
    assert "commitlog_disk_access_mode: legacy\n" in server.config()
    monkeypatch.setattr(os, "O_DIRECT", 0)
    assert "commitlog_disk_access_mode: auto\n" in server.config()
