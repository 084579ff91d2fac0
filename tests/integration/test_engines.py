"""Each server in a container, one test, so that every run where Docker answers has tried that engine."""

import asyncio
import os
import subprocess
from pathlib import Path

from kafka import KafkaProducer
from redis import Redis

from schemas.topics import Topic
from streams.runtime.topics import create_topics
from streams.stores.redis import RedisStateStore
from streams.stores.state import Checkpoint
from tests.engines import Engine, images
from tests.engines.containers import OWNER, owner, sweep
from tests.local import cassandra_session, records


def test_kafka_in_a_container_keeps_records(containers: Engine, tmp_path: Path) -> None:
    """What is sent is read back, a record of 2 MB too: the pipeline must get it, to refuse it."""
    values = [b"first", b"x" * 2_000_000]
    with containers.kafka(tmp_path) as kafka:
        create_topics(kafka.address, [Topic("contained", 1)])
        producer = KafkaProducer(bootstrap_servers=kafka.address, max_request_size=1 << 22)
        for value in values:
            producer.send("contained", value)
        producer.close()
        assert [record.value for record in records(kafka.address, "contained")] == values


def test_valkey_in_a_container_comes_back_with_its_snapshot(containers: Engine, tmp_path: Path) -> None:
    """After a kill it is at the same address, with the checkpoint that was in its last snapshot."""

    async def scenario(url: str, write: bool) -> Checkpoint | None:
        store = RedisStateStore(url, 60_000)
        claim = await store.claim("fraud.customer.x.0")
        if write:
            await store.save("fraud.customer.x.0", claim.epoch, Checkpoint(7, b"marks"), [(b"a", b"state")])
        await store.close()
        return claim.checkpoint

    with containers.valkey(tmp_path, save="3600 1") as valkey:
        asyncio.run(scenario(valkey.url, write=True))
        with Redis.from_url(valkey.url) as redis:
            redis.save()
        valkey.kill()
        valkey.start()
        valkey.wait_healthy()
        assert asyncio.run(scenario(valkey.url, write=False)) == Checkpoint(7, b"marks")


def test_cassandra_in_a_container_keeps_rows(containers: Engine, tmp_path: Path) -> None:
    """A row that was written is read back."""
    with containers.cassandra(tmp_path) as cassandra, cassandra_session(cassandra.address) as session:
        replication = "{'class': 'SimpleStrategy', 'replication_factor': 1}"
        session.execute(f"CREATE KEYSPACE contained WITH replication = {replication}")
        session.execute("CREATE TABLE contained.one (id int PRIMARY KEY, word text)")
        session.execute("INSERT INTO contained.one (id, word) VALUES (1, 'kept')")
        assert [row.word for row in session.execute("SELECT word FROM contained.one")] == ["kept"]


def test_what_a_dead_run_has_left_is_removed(containers: Engine) -> None:
    """A killed test run cannot remove its containers: the next one does, and leaves those of the living alone."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    client = images.engine()
    assert client is not None
    name = images.image(client, "valkey")
    dead, alive = (client.containers.create(name, labels={OWNER: owner(pid)}) for pid in (ended.pid, os.getpid()))
    sweep(client)
    left = {container.id for container in client.containers.list(all=True, ignore_removed=True)}
    alive.remove()
    assert {dead.id, alive.id} & left == {alive.id}
