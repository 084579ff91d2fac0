"""Ports on the loopback address."""

import random
import socket

HOST = "127.0.0.1"
# Below the ports that Linux (32768) and macOS (49152) lend to outgoing connections: while a server is down, a
# client that retries from a lent port can connect to itself and keep the server's port.
FREE_RANGE = range(20_000, 32_000)


def is_free(port: int) -> bool:
    """Whether a server could listen on this port now."""
    with socket.socket() as probe:
        # As the servers do: a listener is an obstacle, connections that linger in TIME_WAIT are not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port on which nobody listens."""
    for port in random.sample(FREE_RANGE, 200):
        if is_free(port):
            return port
    raise OSError(f"no free port between {FREE_RANGE.start} and {FREE_RANGE.stop}")


def answers(port: int) -> bool:
    """Whether somebody accepts connections on this port."""
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True
