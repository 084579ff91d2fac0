"""What the tests of secured servers do as one service's user or another, and as somebody without a login."""

import asyncio
import socket
import ssl
import time

import msgspec
import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition

from infra.local.ports import HOST
from infra.local.secure import SecureServers
from schemas.codec import encode
from schemas.events import Label, Score, Transaction
from services.rights.table import user
from streams.runtime.connection import connection
from streams.runtime.producer import Producer
from streams.settings import Settings
from streams.usecases import FRAUD

PARTITIONS = 1
TOPICS = FRAUD.topics(PARTITIONS)
EVENTS = 40
PATIENCE = 60.0
PASSWORD = "Sesam7"


def environment(servers: SecureServers, service: str = "") -> dict[str, str]:
    """The settings of a service's user, of the administrator without one."""
    who = servers.environment(user(FRAUD, service)) if service else servers.environment()
    return who | {"HEADRACE_PARTITIONS": str(PARTITIONS)}


def settings(servers: SecureServers, service: str = "") -> Settings:
    return Settings.read(environment(servers, service))


def send(servers: SecureServers, service: str, topic: str, *messages: Transaction | Label) -> None:
    with Producer(settings(servers, service).kafka, linger_ms=0) as producer:
        for message in messages:
            key = message.customer_id if isinstance(message, Transaction) else message.event_id
            producer.send(topic, encode(message), key.encode())


def scored(servers: SecureServers) -> set[str]:
    """The events in the scores topic, as the consumer of scores sees them."""
    return asyncio.run(_scored(servers))


async def _scored(servers: SecureServers) -> set[str]:
    # kafka-python's consumer now and then hears nothing more by TLS, heartbeats included, and is put out of its group.
    consumer = AIOKafkaConsumer(
        TOPICS.scores.name,
        **connection(settings(servers, "consumer").kafka),
        group_id=f"fraud-consumer-{time.monotonic_ns()}",
        auto_offset_reset="earliest",
    )
    decode, found = msgspec.json.Decoder(Score).decode, set()
    deadline = time.monotonic() + PATIENCE
    await consumer.start()
    try:
        while len(found) < EVENTS and time.monotonic() < deadline:
            fetched = await consumer.getmany(timeout_ms=200)
            found |= {decode(one.value).event_id for some in fetched.values() for one in some}
    finally:
        await consumer.stop()
    return found


def listening(servers: SecureServers) -> set[int]:
    """Every TCP port at which one of the servers listens."""
    pids = [server.process_id.pid for server in servers.servers if server.process_id]
    connections = [one for pid in pids for one in psutil.Process(pid).net_connections("tcp")]
    return {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN}


def answer(port: int, question: bytes) -> bytes:
    """What comes back on a plain connection, empty if it is just cut."""
    with socket.create_connection((HOST, port), 5) as plain:
        plain.settimeout(5)
        try:
            plain.sendall(question)
            return plain.recv(100)
        except (ConnectionError, TimeoutError):
            return b""


def speaks_tls(port: int) -> bool:
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((HOST, port), 5) as plain, anyone.wrap_socket(plain) as secured:
        return secured.version() in ("TLSv1.2", "TLSv1.3")


PLAIN = {
    "kafka": bytes.fromhex("00000014 0012 0000 00000001 000a") + b"kafka-test",  # ApiVersions
    "redis": b"PING\r\n",
    "cassandra": bytes.fromhex("04 00 0000 05 00000000"),  # OPTIONS
}
TLS_ALERT = b"\x15"


async def readable(servers: SecureServers, service: str, topic: str, group: str | None = None) -> int:
    """How many records a service's user gets of a topic; raises KafkaError where it may not."""
    consumer = AIOKafkaConsumer(**connection(settings(servers, service).kafka), group_id=group)
    await consumer.start()
    try:
        place = TopicPartition(topic, 0)
        consumer.assign([place])
        if group:
            await consumer.committed(place)
        consumer.seek(place, 0)
        return sum(map(len, (await consumer.getmany(timeout_ms=1000)).values()))
    finally:
        await consumer.stop()
