"""Kafka's requests over a plain socket: what measures must take little of the processor that is measured."""

import socket
import struct

from aiokafka.protocol.api import RequestStruct

ANSWER_SECONDS = 20.0
CLIENT = "bench"
LENGTH = struct.Struct(">i")


def connect(broker: str) -> socket.socket:
    """Return a connection to HOST:PORT, whose waiting ends after `ANSWER_SECONDS` with an OSError."""
    host, port = broker.rsplit(":", 1)
    connection = socket.create_connection((host, int(port)), ANSWER_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def frame(request: RequestStruct, number: int) -> bytes:
    """Return a request as it is sent; the answer names its number."""
    body: bytes = request.build_request_header(correlation_id=number, client_id=CLIENT).encode() + request.encode()
    return LENGTH.pack(len(body)) + body


def answer(connection: socket.socket, received: bytearray) -> bytes:
    """Take the next answer from what has been received, waiting for more if need be; its number is left out.

    Raises OSError where the broker ends the connection.
    """
    while len(received) < LENGTH.size or len(received) < LENGTH.size + LENGTH.unpack_from(received)[0]:
        more = connection.recv(1 << 20)
        if not more:
            raise OSError("the broker has ended the connection")
        received += more
    end = LENGTH.size + LENGTH.unpack_from(received)[0]
    taken = bytes(received[2 * LENGTH.size : end])
    del received[:end]
    return taken
