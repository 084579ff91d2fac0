"""The consumer of latency measurements reads on where it stood, and notices what the broker refuses."""

import socket

import numpy as np
import pytest
from aiokafka.protocol.fetch import FetchRequest_v4, FetchResponse_v4

from streams.runtime.records import Spans, build
from tests.bench.sink import Sink
from tests.bench.wire import CLIENT
from tests.unit.bench.broker import broker, framed, receive

HEAD = 2 * 2 + 4 + 2 + len(CLIENT)  # key, version, number, and who asks


def answered(number: int, parts: list[tuple[int, int, bytes]]) -> bytes:
    """Return an answer of (partition, error, records)."""
    partitions = [(partition, error, 0, 0, [], data) for partition, error, data in parts]
    return framed(number, FetchResponse_v4(0, [("scores", partitions)]).encode())


def records(values: list[bytes], first: int) -> bytes:
    (batch,) = build(Spans.of(values), Spans.of(values), np.zeros(len(values), np.int64))
    return first.to_bytes(8, "big") + bytes(batch[8:])


def asked(request: bytes) -> dict[int, int]:
    """Return the offset that a request asks for, by partition."""
    ((_, partitions),) = FetchRequest_v4.decode(request[HEAD:]).topics
    return {partition: offset for partition, offset, _ in partitions}


def test_it_reads_on_behind_what_has_come() -> None:
    offsets = []

    def serve(connection: socket.socket) -> None:
        offsets.append(asked(receive(connection)))
        connection.sendall(answered(0, [(0, 0, records([b"a", b"b"], first=7)), (1, 0, b"")]))
        offsets.append(asked(receive(connection)))
        connection.sendall(answered(1, [(0, 0, b""), (1, 0, b"")]))

    with broker(serve) as address, Sink(address, "scores", {0: 7, 1: 3}) as sink:
        assert [one.values() for one in sink.take()] == [[b"a", b"b"]]
        assert sink.take() == []
    assert offsets == [{0: 7, 1: 3}, {0: 9, 1: 3}]


def test_what_the_broker_refuses_is_an_error() -> None:
    def serve(connection: socket.socket) -> None:
        receive(connection)
        connection.sendall(answered(0, [(0, 6, b"")]))

    refused = pytest.raises(OSError, match="partition 0: the broker has refused to be read with error 6")
    with broker(serve) as address, Sink(address, "scores", {0: 0}) as sink, refused:
        sink.take()
