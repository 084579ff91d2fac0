"""One fault at a time, under real workers: whatever it is, every event is scored and every state stays exact.

The workers are kept running as an orchestrator would, and go on from one test to the next.
"""

import random
import signal
import time
from collections.abc import Iterator

import pytest
from kafka import KafkaConsumer, TopicPartition
from redis import Redis

from infra.processes import Process, Processes
from schemas.codec import encode
from schemas.events import Transaction
from streams.runtime.producer import Producer
from streams.usecases import FRAUD
from tests.chaos.fleet import Fleet
from tests.engines import Engine, ValkeyServer
from tests.local import created, kept_states, states_of, within
from tests.oracle import expected

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

PARTITIONS, SESSION_SECONDS = 2, 2.0
TOPICS = FRAUD.topics(PARTITIONS)
PATIENCE = 100.0  # seconds


class World:
    """Workers over a Valkey of their own; `pay` sends, `holds` compares what has come of it."""

    def __init__(self, kafka: str, valkey: ValkeyServer, fleet: Fleet) -> None:
        self.kafka, self.valkey, self.fleet = kafka, valkey, fleet
        self.chance = random.Random(3)
        self.sent: list[Transaction] = []
        self._scored = set[bytes | None]()
        self._scores = KafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False)
        self._scores.assign([TopicPartition(TOPICS.scores.name, number) for number in range(PARTITIONS)])
        self._scores.seek_to_beginning()

    def pay(self, count: int = 300) -> None:
        """Send payments of few customers, so that each fault finds old state and leaves some to be changed."""
        now = int(time.time() * 1000)
        new = [
            Transaction(
                f"e{len(self.sent) + number}",
                now - self.chance.randrange(5000),
                f"c{self.chance.randrange(40)}",
                f"t{self.chance.randrange(20)}",
                self.chance.random() * 100,
            )
            for number in range(count)
        ]
        with Producer(self.kafka, linger_ms=1) as producer:
            for event in new:
                producer.send(TOPICS.events.name, encode(event), key=event.customer_id.encode())
        self.sent += new

    def holds(self) -> None:
        """Every event has a score, and every state becomes that of an uninterrupted run, bit for bit."""
        ids = {event.event_id.encode() for event in self.sent}
        assert within(PATIENCE, lambda: self.scored() == ids), self.told()
        _, uninterrupted = expected(self.sent)
        assert within(PATIENCE, lambda: kept_states(self.valkey.url) == uninterrupted), self.told()

    def scored(self) -> set[bytes | None]:
        """Return the events that have a score by now."""
        for some in self._scores.poll(100).values():
            self._scored.update(record.key for record in some)
        return self._scored

    def worked(self) -> None:
        """Let the workers be at work when the fault comes."""
        assert within(PATIENCE, self.fleet.ready), self.told()
        self.pay()
        self.holds()

    def ended(self, since: int) -> str:
        """Wait until a worker has ended by itself since there were so many ends; return how."""
        assert within(PATIENCE, lambda: len(self.fleet.ends) > since), self.told()
        return " / ".join(end.why for end in self.fleet.ends[since:])

    def suspend_with_work(self) -> Process:
        """Suspend the worker at a moment when it has scored what it has not kept; another takes its place."""
        (worker,) = self.fleet.running("worker")
        deadline = time.monotonic() + PATIENCE
        while True:
            self.pay()
            ids = {event.event_id.encode() for event in self.sent}
            while self.scored() != ids:
                assert time.monotonic() < deadline, self.told()
            worker.signal(signal.SIGSTOP)
            if kept_states(self.valkey.url) != expected(self.sent)[1]:
                return self.fleet.suspend("worker", self.chance)
            worker.signal(signal.SIGCONT)
            assert time.monotonic() < deadline, "whenever it stops, it has kept everything"

    def close(self) -> None:
        self._scores.close()

    def told(self) -> str:
        """How workers ended and what those that run have said."""
        running = [one.epitaph() for one in self.fleet.running("worker")]
        return "\n".join([*(f"{end.name}: {end.why}" for end in self.fleet.ends), *running])


@pytest.fixture(scope="module")
def world(kafka_server: str, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("faults")
    with created(kafka_server, TOPICS), engine.valkey(folder / "valkey") as valkey:
        settings = {
            "HEADRACE_KAFKA": kafka_server,
            "HEADRACE_REDIS": valkey.url,
            "HEADRACE_MODEL_KEY": "k" * 32,
            "HEADRACE_PARTITIONS": str(PARTITIONS),
            "HEADRACE_SESSION_SECONDS": str(SESSION_SECONDS),
            "HEADRACE_CHECKPOINT_SECONDS": "0.2",
        }
        with Processes(folder / "logs", settings) as processes, Fleet(processes, FRAUD.name) as fleet:
            fleet.start({"worker": 1})
            world = World(kafka_server, valkey, fleet)
            yield world
            fleet.stop()
            world.close()


def test_a_wiped_valkey_is_rebuilt_from_kafka(world: World) -> None:
    """Everything gone under a live worker: it is fenced, and its replacement comes to the same states."""
    world.worked()
    ends = len(world.fleet.ends)
    with Redis.from_url(world.valkey.url) as redis:
        redis.flushall()
    world.pay()
    assert "has lost writes" in world.ended(ends)
    world.holds()


def test_a_valkey_that_goes_back_in_time_is_caught_up_with(world: World) -> None:
    """Back from an older snapshot, under a live worker: what it has lost is folded again, and nothing twice."""
    world.worked()
    with Redis.from_url(world.valkey.url) as redis:
        redis.save()
    world.pay()
    world.holds()
    ends = len(world.fleet.ends)
    world.valkey.kill()
    world.valkey.start()
    world.valkey.wait_healthy()
    world.pay()
    assert "has lost writes" in world.ended(ends)
    world.holds()


def test_a_worker_that_wakes_late_is_fenced(world: World) -> None:
    """Suspended until its partitions are another's: what it still does changes no state, and it ends."""
    world.worked()
    ends = len(world.fleet.ends)
    zombie = world.suspend_with_work()
    try:
        assert within(PATIENCE, world.fleet.ready), world.told()
        world.pay()
        world.holds()
    finally:
        world.fleet.wake(zombie)
    assert within(PATIENCE, lambda: not zombie.alive), world.told()
    assert world.fleet.dismiss("worker", zombie)
    assert " is over" in world.ended(ends)
    world.pay()
    world.holds()
    assert [end.name for end in world.fleet.ends[ends:]] == [zombie.name], world.told()


def test_workers_come_and_go_without_a_trace(world: World) -> None:
    """1 → 3 → 1 workers under load, one of them killed: no event is lost and none counts twice."""
    world.worked()
    ends = len(world.fleet.ends)
    world.fleet.want["worker"] = 3
    deadline = time.monotonic() + PATIENCE
    while not world.fleet.ready():
        assert time.monotonic() < deadline, world.told()
        world.pay(20)
    world.fleet.kill("worker", world.chance)
    world.pay()
    world.fleet.want["worker"] = 1
    world.pay()
    world.holds()
    assert world.fleet.ends[ends:] == [], world.told()


@pytest.mark.parametrize("what", ["checkpoint", "state"])
def test_a_damaged_key_is_set_aside_and_rebuilt(world: World, what: str) -> None:
    """A flipped byte in Valkey: the key is named in one line and set aside, the partition is rebuilt."""
    world.worked()
    ends = len(world.fleet.ends)
    world.fleet.want["worker"] = 0
    assert within(PATIENCE, lambda: not world.fleet.running("worker"))
    with Redis.from_url(world.valkey.url) as redis:
        for place in list(redis.scan_iter("{fraud.customer.*}:checkpoint")):
            if what == "checkpoint":
                record = redis.hget(place, "record") or b""
                redis.hset(place, "record", bytes([record[0] ^ 1]) + record[1:])
                continue
            for key in states_of(redis, place):
                for entity, state in redis.hgetall(key).items():
                    redis.hset(key, entity, state[:-1] + bytes([state[-1] ^ 1]))
    world.fleet.want["worker"] = 1
    world.pay()
    world.holds()
    with Redis.from_url(world.valkey.url) as redis:
        aside = list(redis.scan_iter("{fraud.customer.*}:refused:*"))
        assert aside
        assert all(redis.ttl(key) > 0 for key in aside)
        redis.delete(*aside)
    assert (":refused:" in world.ended(ends)) if what == "state" else not world.fleet.ends[ends:], world.told()
