"""How rows find the nodes that own them; the placement itself is the driver's."""

import socket
import time
from types import SimpleNamespace

import pytest
from cassandra.cluster import NoHostAvailable
from cassandra.connection import DefaultEndPoint
from cassandra.metadata import KeyspaceMetadata, Metadata
from cassandra.policies import SimpleConvictionPolicy
from cassandra.pool import Host
from cassandra.query import PreparedStatement
from hypothesis import given
from hypothesis import strategies as st

from streams.settings import CassandraAccess
from streams.stores import cql
from streams.stores.cql import CqlSession, RoutedStatement, chunks, composite_key
from streams.stores.cql_refusal import unreachable
from streams.stores.history import StoreUnreachable

KEYS = [f"e{i}" for i in range(200)]


def session(nodes: int) -> CqlSession:
    """A session that knows a ring of so many nodes, each row on one of them."""
    metadata = Metadata()
    tokens = {}
    for number in range(nodes):
        host, _ = metadata.add_or_return_host(Host(DefaultEndPoint(f"10.0.0.{number}"), SimpleConvictionPolicy))
        host.set_location_info("datacenter1", "rack1")
        tokens[host] = [str(-(2**63) + (number + 1) * (2**64 // nodes) - 1)]
    metadata.keyspaces["k"] = KeyspaceMetadata("k", True, "SimpleStrategy", {"replication_factor": "1"})
    metadata.rebuild_token_map("org.apache.cassandra.dht.Murmur3Partitioner", tokens)
    one = CqlSession("127.0.0.1:1", lambda _: None)
    one._cluster = SimpleNamespace(metadata=metadata)
    return one


def place(key: str) -> tuple[str, bytes]:
    return "k", composite_key("fraud", key)


def test_rows_are_grouped_by_the_node_that_owns_them() -> None:
    """On three nodes every key is in one of three groups, and a group's keys all live on the same node."""
    one = session(3)
    groups = one.by_owners(KEYS, place)
    assert len(groups) == 3
    assert sorted(key for group in groups for key in group) == sorted(KEYS)
    for group in groups:
        owners = {tuple(one._cluster.metadata.get_replicas(*place(key))) for key in group}
        assert len(owners) == 1


def test_a_single_node_owns_everything() -> None:
    """On one node all rows are one group, in their order."""
    assert session(1).by_owners(KEYS, place) == [KEYS]


@given(st.lists(st.integers(0, 30), max_size=40), st.integers(1, 40))
def test_chunks_keep_every_row_in_order_within_the_limit(sizes: list[int], limit: int) -> None:
    """No row is lost or moved, no chunk is over the limit unless it is a single row, none could take the next row."""
    rows = [SimpleNamespace(values=[b"x" * size]) for size in sizes]
    cut = list(chunks(rows, limit))
    assert [row for chunk in cut for row in chunk] == rows
    weights = [sum(len(row.values[0]) for row in chunk) for chunk in cut]
    assert all(weight <= limit or len(chunk) == 1 for weight, chunk in zip(weights, cut, strict=True))
    firsts = [len(chunk[0].values[0]) for chunk in cut[1:]]
    assert all(weight + first > limit for weight, first in zip(weights, firsts, strict=False))


def test_a_routed_statement_keeps_its_partition_key() -> None:
    """The driver asks a statement for its routing key; ours answers even where the driver's own would not."""
    prepared = PreparedStatement([], b"id", None, "SELECT", "k", 4, None, None)
    assert RoutedStatement(prepared, b"key").routing_key == b"key"


def test_a_host_that_there_is_not_is_named() -> None:
    """A name that does not resolve is one line with the address, as any other cluster that cannot be reached."""
    address = "cassandra.invalid:9042"
    with pytest.raises(StoreUnreachable, match=rf"^Cassandra at {address}: no such host$"):
        CqlSession(address, lambda _: None).connect([])


def test_a_node_that_stands_still_has_as_long_as_for_any_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the driver's few seconds; then it is one line that says so."""
    monkeypatch.setattr(cql, "REQUEST_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        begin = time.monotonic()
        with pytest.raises(StoreUnreachable, match=rf"^Cassandra at {address}: no answer in time$"):
            CqlSession(address, lambda _: None).connect([])
    assert 0.3 <= time.monotonic() - begin < 4


@pytest.mark.parametrize("errors", [{}, [], ["10.0.0.1", "10.0.0.2"]])
def test_nodes_that_were_tried_in_vain_are_one_line(errors: object) -> None:
    """The driver does not always say what went wrong with each."""
    error = unreachable(CassandraAccess("10.0.0.1:9042"), NoHostAvailable("Unable to connect to any servers", errors))
    assert str(error) == "Cassandra at 10.0.0.1:9042: no node answers"
