"""Faults of clusters: a broker of three, a Redis master of three, or both are killed or hang."""

import time

from infra.local.cluster import Broker, LocalCluster, Member
from infra.local.server import Server
from tests.chaos.faults import BACK_SECONDS, HISTORY, KILL, LEARNER, ZOMBIE, Fault, World, _settle
from tests.chaos.fleet import NotDone
from tests.local import within

AWAY_SECONDS = 5.0  # longer than a broker's session and a node's time-out: leaders are elected without it
BROKER_HANGS_SECONDS, MASTER_HANGS_SECONDS = 30.0, 12.0  # longer than requests to them may take


def kill_broker(world: World) -> None:
    """A broker is killed (-9) and started again when the others have taken over from it."""
    _settle(world)
    broker = _a_broker(world)
    world.begin(f"kill -9 broker {broker.node_id}")
    _away(world, broker)


def kill_master(world: World) -> None:
    """The Redis master that keeps most is killed (-9) and comes back without any of it."""
    _settle(world)
    master = _fullest(world)
    world.begin(f"kill -9 Redis master with {_used(master) >> 20} MiB")
    _away(world, master)


def kill_both(world: World) -> None:
    """A broker and the Redis master that keeps most are killed (-9) at once."""
    _settle(world)
    broker, master = _a_broker(world), _fullest(world)
    world.begin(f"kill -9 broker {broker.node_id} and Redis master with {_used(master) >> 20} MiB")
    _away(world, broker, master)


def broker_hangs(world: World) -> None:
    """A broker is suspended until the others have taken over, and wakes without knowing."""
    _settle(world)
    broker = _a_broker(world)
    world.begin(f"broker {broker.node_id} hangs")
    _hang(broker, BROKER_HANGS_SECONDS)


def master_hangs(world: World) -> None:
    """A Redis master is suspended; it keeps what it has."""
    _settle(world)
    master = _fullest(world)
    world.begin("Redis master hangs")
    _hang(master, MASTER_HANGS_SECONDS)


def _cluster(world: World) -> LocalCluster:
    assert isinstance(world.servers, LocalCluster)
    return world.servers


def _a_broker(world: World) -> Broker:
    return world.chance.choice(_cluster(world).kafka.members)


def _fullest(world: World) -> Member:
    return max(_cluster(world).valkey.masters, key=_used)


def _used(master: Member) -> int:
    """Return the bytes that a master has in use."""
    return int(master.asked("INFO", "memory")["used_memory"])


def _away(world: World, *servers: Server) -> None:
    for server in servers:
        server.kill()
    time.sleep(AWAY_SECONDS)
    for server in servers:
        server.start()
    for server in servers:
        server.wait_healthy(timeout=BACK_SECONDS)
    if not within(BACK_SECONDS, _cluster(world).valkey.formed):
        raise NotDone(f"the Redis Cluster was not whole again within {BACK_SECONDS:.0f} s")


def _hang(server: Server, seconds: float) -> None:
    server.suspend()
    time.sleep(seconds)
    server.resume()


BROKER, MASTER, BOTH = Fault(25, kill_broker), Fault(25, kill_master), Fault(25, kill_both)
HANGS = (Fault(40, broker_hangs), Fault(20, master_hangs))
CLUSTER_CAMPAIGN = (*[KILL] * 4, LEARNER, HISTORY, *[BROKER] * 3, *[MASTER] * 2, BOTH, *HANGS, ZOMBIE)
