"""The few frames of the CQL protocol that it takes to ask a node for its cluster's name."""

import socket
import struct

from .ports import HOST

# CQL binary protocol v4, section 2: version, flags, stream, opcode, body length.
HEADER = struct.Struct(">BBhBI")
REQUEST, STARTUP, READY, QUERY, RESULT = 0x04, 0x01, 0x02, 0x07, 0x08
ROWS, CONSISTENCY_ONE = 2, 1
STATEMENT = b"SELECT cluster_name FROM system.local"


def cluster_name(port: int, timeout: float = 5.0) -> str | None:
    """The name of the cluster whose node answers on this port, None while none does."""
    try:
        with socket.create_connection((HOST, port), timeout) as connection:
            if _ask(connection, STARTUP, _string_map({"CQL_VERSION": "3.0.0"}))[0] != READY:
                return None
            query = struct.pack(">I", len(STATEMENT)) + STATEMENT + struct.pack(">HB", CONSISTENCY_ONE, 0)
            opcode, body = _ask(connection, QUERY, query)
    except (OSError, EOFError):
        return None
    return last_value(body) if opcode == RESULT else None


def last_value(body: bytes) -> str | None:
    """The only value of a ROWS result of one text column and one row (section 4.2.5.2)."""
    kind, flags, columns = struct.unpack_from(">III", body)
    if (kind, flags, columns) != (ROWS, 1, 1):  # flag 1: keyspace and table stand before the columns
        return None
    at = 12
    for _ in ("keyspace", "table", "column"):
        at += 2 + struct.unpack_from(">H", body, at)[0]
    at += 2  # the column's type
    rows = struct.unpack_from(">I", body, at)[0]
    if rows != 1:
        return None
    length = struct.unpack_from(">I", body, at + 4)[0]
    return body[at + 8 : at + 8 + length].decode()


def _string_map(pairs: dict[str, str]) -> bytes:
    strings = [text.encode() for pair in pairs.items() for text in pair]
    return struct.pack(">H", len(pairs)) + b"".join(struct.pack(">H", len(text)) + text for text in strings)


def _ask(connection: socket.socket, opcode: int, body: bytes) -> tuple[int, bytes]:
    connection.sendall(HEADER.pack(REQUEST, 0, 0, opcode, len(body)) + body)
    _, _, _, answer, length = HEADER.unpack(_read(connection, HEADER.size))
    return answer, _read(connection, length)


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data
