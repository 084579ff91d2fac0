import socket

from infra.local.ports import FREE_RANGE, HOST, answers, free_port, is_free


def test_a_port_with_a_listener_is_not_free() -> None:
    """A listener takes the port, and gives it back when it closes."""
    port = free_port()
    with socket.create_server((HOST, port)):
        assert not is_free(port)
        assert answers(port)
    assert is_free(port)
    assert not answers(port)


def test_a_lingering_connection_leaves_the_port_free() -> None:
    """A server that has just stopped can start again on its port: TIME_WAIT is no obstacle."""
    port = free_port()
    with socket.create_server((HOST, port)) as server:
        client = socket.create_connection((HOST, port))
        accepted, _ = server.accept()
        accepted.close()  # this side closes first and lingers
        assert client.recv(1) == b""
        client.close()
    assert is_free(port)


def test_free_ports_are_never_lent_to_outgoing_connections() -> None:
    """They come from below the kernel's ephemeral range."""
    assert all(free_port() in FREE_RANGE for _ in range(20))
    assert FREE_RANGE.stop <= 32_768
