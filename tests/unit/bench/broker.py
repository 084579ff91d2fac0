"""A broker of one connection, in a thread, that answers as a test says."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.bench.wire import LENGTH

WAIT_SECONDS = 20.0


@contextmanager
def broker(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Yield the address of a broker that serves one connection so."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(WAIT_SECONDS)

        def accept() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(WAIT_SECONDS)
                serve(connection)

        server = threading.Thread(target=accept)
        server.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.join(WAIT_SECONDS)


def receive(connection: socket.socket) -> bytes:
    """Return the next request."""
    (size,) = LENGTH.unpack(connection.recv(LENGTH.size, socket.MSG_WAITALL))
    request = connection.recv(size, socket.MSG_WAITALL)
    assert len(request) == size
    return request


def framed(number: int, answer: bytes) -> bytes:
    """Return the answer to the request of that number as it is sent."""
    return LENGTH.pack(LENGTH.size + len(answer)) + LENGTH.pack(number) + answer
