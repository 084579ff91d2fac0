"""What the sniffer of the container tests makes of frames; that it sees them is tested there."""

import socket
import struct

import pytest

from tests.containers.sniffer import SYN, is_tls, parsed, streams

CLIENT, SERVER = ("10.0.0.1", 40000), ("10.0.0.2", 9092)
HELLO = bytes([22, 3, 1, 0, 3]) + b"abc"
DATA = bytes([23, 3, 3, 0, 2]) + b"xy"


def frame(sequence: int, payload: bytes = b"", flags: int = 0, padding: bytes = b"") -> bytes:
    """An Ethernet frame from client to server."""
    tcp = struct.pack(">HHIIBBHHH", CLIENT[1], SERVER[1], sequence, 0, 5 << 4, flags, 0, 0, 0) + payload
    addresses = socket.inet_aton(CLIENT[0]) + socket.inet_aton(SERVER[0])
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + addresses
    return bytes(12) + b"\x08\x00" + ip + tcp + padding


def followed(*frames: bytes) -> list[tuple[object, bytes]]:
    return list(streams(segment for one in frames if (segment := parsed(one))))


def test_a_stream_is_put_together() -> None:
    """Segments that come late, twice or longer the second time make one stream, also where numbers start anew."""
    first = (1 << 32) - 3
    frames = [
        frame(first, flags=SYN),
        frame(first + 1, b"ab"),
        frame(2, b"ef"),
        frame(0, b"cd"),
        frame(0, b"cde", padding=bytes(4)),
    ]
    assert followed(*frames) == [((CLIENT, SERVER), b"abcdef")]


def test_what_is_missing_is_not_made_up() -> None:
    """A stream ends before a gap, and one whose beginning was not seen is none."""
    assert followed(frame(7, flags=SYN), frame(8, b"ab"), frame(12, b"ef")) == [((CLIENT, SERVER), b"ab")]
    assert followed(frame(8, b"ab")) == []


def test_other_frames_are_passed_over() -> None:
    """What is no IPv4 or no TCP."""
    arp = bytes(12) + b"\x08\x06" + bytes(60)
    udp = bytearray(frame(1, b"a"))
    udp[23] = 17
    assert parsed(arp) is parsed(bytes(udp)) is None


@pytest.mark.parametrize(
    ("stream", "tls"),
    [
        (HELLO + DATA, True), (HELLO + DATA[:3], True), (HELLO + DATA[:6], True), (HELLO[:1], True),
        (b"PING\r\n", False), (HELLO + b"PING\r\n", False), (bytes([22, 2, 0, 0, 1, 0]), False),
        (bytes([23, 3, 3, 255, 255]), False),
    ],
)  # fmt: skip
def test_tls_is_records_to_the_end(stream: bytes, tls: bool) -> None:
    """A stream that falls out of TLS is as clear as one that never began it; the last record may be cut off."""
    assert is_tls(stream) is tls
