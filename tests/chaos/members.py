"""Faults of clusters: one broker of three is killed, one Redis master of three is killed, and comes back empty."""

from infra.local.cluster import LocalCluster
from tests.chaos.faults import HISTORY, KILL, LEARNER, READY_SECONDS, ZOMBIE, Fault, World, _restart, _settle
from tests.local import within

AWAY_SECONDS = 5.0  # longer than a broker's session and a node's time-out: leaders are elected without it


def kill_broker(world: World) -> None:
    """A broker is killed (-9) and started again when the others have taken over from it."""
    cluster = _cluster(world)
    _settle(world)
    broker = world.chance.choice(cluster.kafka.members)
    world.begin(f"kill -9 broker {broker.node_id} of {len(cluster.kafka.members)}")
    _restart(broker, AWAY_SECONDS)


def kill_master(world: World) -> None:
    """The Redis master that keeps most is killed (-9) and comes back without any of it."""
    cluster = _cluster(world)
    _settle(world)
    master = max(cluster.valkey.masters, key=lambda one: one.asked("DBSIZE"))
    world.begin(f"kill -9 Redis master with {master.asked('DBSIZE'):,} keys")
    _restart(master, AWAY_SECONDS)
    within(READY_SECONDS, cluster.valkey.formed)


def _cluster(world: World) -> LocalCluster:
    assert isinstance(world.servers, LocalCluster)
    return world.servers


BROKER, MASTER = Fault(20, kill_broker), Fault(20, kill_master)
MEMBERS = (BROKER, MASTER)
CLUSTER_CAMPAIGN = (*[KILL] * 4, LEARNER, HISTORY, *[BROKER] * 4, *[MASTER] * 3, ZOMBIE)
