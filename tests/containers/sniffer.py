"""What really travels on a Docker network: the frames that pass its bridge, put together by connection."""

import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import NamedTuple, Self

# From linux/if_ether.h, linux/if_packet.h and asm-generic/socket.h; Python's socket has no names for them.
ETH_P_ALL, SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_STATISTICS, PACKET_MR_PROMISC = 3, 263, 1, 6, 1
SO_RCVBUFFORCE, BUFFER = 33, 64 << 20
IPV4, TCP, SYN = 0x0800, 6, 0x02
RECORDS = range(20, 24)  # TLS: change cipher, alert, handshake, data (RFC 8446, 5.1)
LONGEST_RECORD = (1 << 14) + 256 + 1792  # with what TLS 1.2 may add

NAMES = (b"fraud.transactions", b"fraud.scores", b"fraud-worker", b"customer_id", b"headrace.scores", b"INSERT INTO")
"""What can be read wherever nothing is encrypted: topics, users, fields, tables and statements."""

Place = tuple[str, int]
Direction = tuple[Place, Place]


class Segment(NamedTuple):
    """A TCP segment from one place (address and port) to another."""

    direction: Direction
    sequence: int
    begins: bool
    payload: bytes


class Sniffer:
    """Keeps the TCP segments on a bridge while the block lasts; raises OSError where this is not root's machine."""

    def __init__(self, interface: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.bind((interface, 0))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        # Without it a bridge shows what is meant for this machine, and not what passes between containers.
        everything = struct.pack("IHH8s", socket.if_nametoindex(interface), PACKET_MR_PROMISC, 0, b"")
        self._socket.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, everything)
        self._socket.settimeout(0.2)
        self._frames: list[bytes] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self.dropped = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Listen no longer; `dropped` is how many frames were too many."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join(60)
        _, self.dropped = struct.unpack("II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        self._socket.close()

    def segments(self) -> list[Segment]:
        """What has come so far."""
        return [segment for frame in list(self._frames) if (segment := parsed(frame))]

    def _listen(self) -> None:
        while True:
            if self._ended.is_set():
                self._socket.settimeout(0)  # what is queued, and no more
            try:
                self._frames.append(self._socket.recv(1 << 17))
            except (TimeoutError, BlockingIOError):
                if self._ended.is_set():
                    return


def parsed(frame: bytes) -> Segment | None:
    """Return the TCP segment in an Ethernet frame, None if there is none (RFC 791, RFC 9293)."""
    if len(frame) < 54 or int.from_bytes(frame[12:14]) != IPV4 or frame[23] != TCP:
        return None
    packet = frame[14 : 14 + int.from_bytes(frame[16:18])]
    tcp = packet[(packet[0] & 15) * 4 :]
    source, target, sequence = struct.unpack_from(">HHI", tcp)
    direction = (_address(packet[12:16]), source), (_address(packet[16:20]), target)
    return Segment(direction, sequence, bool(tcp[13] & SYN), tcp[(tcp[12] >> 4) * 4 :])


def streams(segments: Iterable[Segment]) -> Iterator[tuple[Direction, bytes]]:
    """Yield what was sent in each direction of each connection that began meanwhile, until a segment is missing."""
    begun: dict[Direction, int] = {}
    sent: dict[tuple[Direction, int], dict[int, bytes]] = defaultdict(dict)
    for segment in segments:
        if segment.begins:
            begun[segment.direction] = segment.sequence
        elif segment.payload and (begin := begun.get(segment.direction)) is not None:
            at = (segment.sequence - begin - 1) % (1 << 32)
            pieces = sent[segment.direction, begin]
            pieces[at] = max(pieces.get(at, b""), segment.payload, key=len)
    for (direction, _), pieces in sent.items():
        stream = bytearray()
        for at, payload in sorted(pieces.items()):
            if at > len(stream):
                break
            stream += payload[len(stream) - at :]
        yield direction, bytes(stream)


def is_tls(stream: bytes) -> bool:
    """Whether a stream is TLS records and nothing else; the last may be cut off."""
    at = 0
    while at < len(stream):
        kind, major, length = stream[at], stream[at + 1 : at + 2], stream[at + 3 : at + 5]
        if kind not in RECORDS or major not in (b"\3", b"") or int.from_bytes(length) > LONGEST_RECORD:
            return False
        at += 5 + int.from_bytes(length)
    return True


def _address(four: bytes) -> str:
    return socket.inet_ntoa(four)
