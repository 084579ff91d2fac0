"""The producer of latency measurements sends by the clock, and notices what the broker refuses."""

import socket
import time
from collections.abc import Callable

import numpy as np
import pytest
from aiokafka.protocol.produce import ProduceResponse_v7

from tests.bench.openloop import TICK_SECONDS, play, schedule, ticks
from tests.bench.wire import LENGTH
from tests.unit.bench.broker import broker, framed, receive


def answer(number: int, error: int = 0) -> bytes:
    return framed(number, ProduceResponse_v7([("topic", [(0, error, number, -1, 0)])], 0).encode())


def played(times: list[float], serve: Callable[[socket.socket], None]) -> list[float]:
    """Play one frame at each of `times` to a broker of our own."""
    with broker(serve) as address:
        return play(address, [LENGTH.pack(8) + b"produced"] * len(times), times)


def test_each_event_leaves_with_the_first_tick_after_it_is_due() -> None:
    due = schedule(5_000.0, 0.5)
    times, ends = ticks(due)
    leaves = np.repeat(times, np.diff(ends, prepend=0))
    assert leaves.size == due.size
    assert np.all(leaves >= due)
    assert np.all(leaves - due <= TICK_SECONDS + 1e-9)
    assert np.unique(times).size == times.size


def test_it_waits_for_no_answer_before_it_sends_the_next() -> None:
    count = 5

    def serve(connection: socket.socket) -> None:
        for _ in range(count):
            receive(connection)
        connection.sendall(b"".join(answer(number) for number in range(count)))

    begin = time.time()
    times = [begin + 0.01 * number for number in range(count)]
    sent = played(times, serve)
    assert len(sent) == count
    assert all(at >= due for at, due in zip(sent, times, strict=True))


@pytest.mark.parametrize("early", [True, False])
def test_what_the_broker_refuses_is_an_error(early: bool) -> None:
    """Whether its answer is there before the last request is sent or not."""

    def serve(connection: socket.socket) -> None:
        receive(connection)
        connection.sendall(answer(0, error=6))
        receive(connection)
        connection.sendall(answer(1))

    with pytest.raises(OSError, match="partition 0: the broker has refused events with error 6"):
        played([0.0, time.time() + (0.2 if early else 0.0)], serve)


def test_a_connection_that_ends_without_an_answer_is_an_error() -> None:
    def hang_up(connection: socket.socket) -> None:
        receive(connection)

    with pytest.raises(OSError, match="the broker has ended the connection"):
        played([0.0], hang_up)
