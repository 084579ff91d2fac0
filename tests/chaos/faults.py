"""The faults, and a seeded schedule of them.

Each is a function of the world that returns when the fault is over (the server is back, the process woken); what it
broke has until the next fault to recover. It raises NotDone where nothing was at work.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from redis import Redis

from infra.local import LocalServers
from infra.local.cluster import LocalCluster
from infra.local.server import Server
from schemas.topics import Topic
from streams.runtime.topics import KafkaUnavailable, record_counts
from tests.chaos.fleet import Fleet, NotDone

SESSION_SECONDS = 6.0
CASSANDRA_SECONDS = 60.0
SNAPSHOT_AGE = 4.0  # seconds between Valkey's snapshot and its death
FENCE_SECONDS = 15.0
BACK_SECONDS = 300.0  # on a machine that has much else to do; the longest pause seen on such a one was 128 s


@dataclass
class World:
    """What faults act on; `log` keeps when each began (seconds since the epoch) and what it was."""

    servers: LocalServers | LocalCluster
    scores: Topic
    fleet: Fleet
    chance: random.Random
    say: Callable[[str], None] = print
    cassandra_seconds: float = CASSANDRA_SECONDS
    log: list[tuple[float, str]] = field(default_factory=list)

    def begin(self, what: str) -> None:
        """Note that a fault begins now."""
        self.log.append((time.time(), what))
        self.say(what)


@dataclass(frozen=True)
class Fault:
    """A fault and how many seconds it and what comes of it may take, in an eight-minute campaign."""

    seconds: float
    do: Callable[[World], None]

    @property
    def name(self) -> str:
        """The function's name."""
        return self.do.__name__


def kill_worker(world: World) -> None:
    """A worker is killed (-9)."""
    _kill(world, "worker")


def kill_learner(world: World) -> None:
    """The learner is killed (-9)."""
    _kill(world, "learner")


def kill_history(world: World) -> None:
    """The history and the join are killed (-9)."""
    _kill(world, "history")


def three_workers(world: World) -> None:
    """Two more workers join."""
    world.begin("1 → 3 workers")
    world.fleet.want["worker"] = 3
    _settle(world)


def one_worker(world: World) -> None:
    """Two workers leave in good order."""
    world.begin("3 → 1 workers")
    world.fleet.want["worker"] = 1


def kafka_restarts(world: World) -> None:
    """Kafka is killed (-9) and started again."""
    world.begin("Kafka killed and restarted")
    _restart(world.servers.kafka, world.chance.uniform(1.0, 4.0))


def valkey_goes_back(world: World) -> None:
    """Valkey is killed (-9) and comes back with a snapshot some seconds old."""
    with Redis.from_url(world.servers.valkey.url) as redis:
        redis.save()
    time.sleep(SNAPSHOT_AGE)
    world.begin(f"Valkey killed, back from a snapshot {SNAPSHOT_AGE:.0f} s old")
    _restart(world.servers.valkey, 0.5)


def valkey_is_wiped(world: World) -> None:
    """Valkey loses everything while the workers live."""
    world.begin("Valkey wiped")
    with Redis.from_url(world.servers.valkey.url) as redis:
        redis.flushall()


def cassandra_is_away(world: World) -> None:
    """Cassandra is killed (-9) and away for a minute."""
    world.begin(f"Cassandra down for {world.cassandra_seconds:.0f} s")
    _restart(world.servers.cassandra, world.cassandra_seconds)


def zombie(world: World) -> None:
    """A worker is suspended until its partitions are another's, and woken."""
    _settle(world)
    world.begin("worker suspended past its session")
    process = world.fleet.suspend("worker", world.chance)
    try:
        time.sleep(SESSION_SECONDS * 2)
        _settle(world)  # whoever takes its partitions over is at work
    finally:
        world.begin("the zombie wakes")
        world.fleet.wake(process)
    deadline = time.monotonic() + FENCE_SECONDS
    while process.alive and time.monotonic() < deadline:
        time.sleep(0.1)
    fenced = world.fleet.dismiss("worker", process)
    world.say(f"  {process.name} {'ended by itself' if fenced else 'joined again and was dismissed'}")


KILL = Fault(11, kill_worker)
LEARNER, HISTORY = Fault(8, kill_learner), Fault(8, kill_history)
ZOMBIE, WIPE = Fault(32, zombie), Fault(60, valkey_is_wiped)
KAFKA, OLDER, CASSANDRA = Fault(28, kafka_restarts), Fault(28, valkey_goes_back), Fault(85, cassandra_is_away)
UP, DOWN = Fault(14, three_workers), Fault(10, one_worker)

CAMPAIGN = (*[KILL] * 10, UP, DOWN, LEARNER, *[HISTORY] * 2, KAFKA, OLDER, WIPE, CASSANDRA, ZOMBIE)
SHORT = (KILL, LEARNER, OLDER)


def schedule(faults: Sequence[Fault], chance: random.Random, first: float, last: float) -> list[tuple[float, Fault]]:
    """Return the faults in a random order, each with when it begins (seconds), between `first` and `last`.

    Workers grow before they shrink, and a wiped Valkey comes early: a rebuild reads all there is.
    """
    order = list(faults)
    chance.shuffle(order)
    if UP in order and order.index(UP) > order.index(DOWN):
        up, down = order.index(UP), order.index(DOWN)
        order[up], order[down] = DOWN, UP
    if WIPE in order:
        order.remove(WIPE)
        order.insert(chance.randint(0, len(order) // 4), WIPE)
    share = (last - first) / sum(fault.seconds for fault in order)
    begins, at = [], first
    for fault in order:
        begins.append((at, fault))
        at += fault.seconds * share
    return begins


def _kill(world: World, service: str) -> None:
    _settle(world)
    world.begin(f"kill -9 {service}")
    world.say(f"  it was {world.fleet.kill(service, world.chance)}")


def _settle(world: World) -> None:
    """Wait until all that was started runs and events are scored: what is killed must have been at work."""
    deadline = time.monotonic() + BACK_SECONDS
    while not (world.fleet.ready() and _flowing(world) and world.fleet.ready()):
        if time.monotonic() > deadline:
            raise NotDone(f"not all was ready and events scored within {BACK_SECONDS:.0f} s")
        time.sleep(0.1)


def _flowing(world: World) -> bool:
    kafka, topics = world.servers.kafka.address, [world.scores]
    try:
        before = record_counts(kafka, topics)
        time.sleep(1.0)
        return record_counts(kafka, topics) != before
    except KafkaUnavailable:
        return False


def _restart(server: Server, away: float) -> None:
    server.kill()
    time.sleep(away)
    server.start()
    server.wait_healthy(timeout=BACK_SECONDS)
