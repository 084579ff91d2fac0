"""Both stages over a store with snapshots, and what may happen to them: Redis wiped, Kafka cut off, a writer killed."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from streams.agents.stage import StageAgent
from streams.stores.entity_snapshots import MemoryEntitySnapshots
from streams.stores.memory import MemoryStateStore
from streams.stores.snapshot_store import SnapshotStore
from streams.stores.state import Checkpoint, SnapshotsUnavailable, States
from tests.unit.streams.agents import payments as base
from tests.unit.streams.agents.payments import STAGES, Payment
from tests.unit.streams.world import Message, World

# Several customer partitions reach a terminal in any order, so here each customer has its terminal.
PAYMENTS = [replace(payment, terminal=f"t{payment.customer}") for payment in base.PAYMENTS]


class Died(Exception):
    """The process that was writing did."""


class MortalSnapshots(MemoryEntitySnapshots):
    """Does not answer while `away`; whoever writes dies after `until` calls, having called `on_write` before each."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.until: int | None = None
        self.on_write: Callable[[], Awaitable[None]] | None = None

    async def header(self, partition: str) -> Checkpoint | None:
        if self.away:
            raise SnapshotsUnavailable("away")
        return await super().header(partition)

    async def write(self, partition: str, position: int, states: States) -> None:
        if self.on_write:
            await self.on_write()
        self._live_on()
        await super().write(partition, position, states)

    async def conclude(self, partition: str, header: Checkpoint) -> None:
        self._live_on()
        await super().conclude(partition, header)

    async def prune(self, partition: str, position: int, entities: Sequence[bytes]) -> None:
        self._live_on()
        await super().prune(partition, position, entities)

    def _live_on(self) -> None:
        if self.until is not None:
            if not self.until:
                raise Died
            self.until -= 1


class Scene:
    """Both stages over a store with snapshots; payments come in parts, and Kafka forgets what is archived."""

    def __init__(self, partitions: int, begin: int = 0) -> None:
        self.redis, self.snapshots = MemoryStateStore(), MortalSnapshots()

        async def begins(_: str) -> int:
            return begin

        self.progress = list[None]()
        self.store = SnapshotStore(self.redis, self.snapshots, begins, lambda: self.progress.append(None))
        self.world = World(partitions, self.store)

    @classmethod
    async def started(cls, partitions: int, begin: int = 0) -> "Scene":
        scene = cls(partitions, begin)
        await scene.start()
        return scene

    def pay(self, payments: list[Payment]) -> None:
        for payment in payments:
            self.world.event(payment.fields)

    async def start(self) -> None:
        for stage in STAGES:
            await self.world.start(stage)

    async def archive(self) -> int:
        """Archive every partition, and return how many states were written."""
        agents = self.world.agents.values()
        return sum([await self.store.archive(name) or 0 for agent in agents for name in names(agent)])

    def forget(self) -> None:
        """Let Kafka's retention take every record there is by now: whoever reads one finds poison."""
        for topic in (self.world.topics.events, *self.world.topics.hops):
            for partition in range(self.world.partitions):
                log = self.world.broker.logs[topic.name, partition]
                log[:] = [Message(b"gone", b"gone")] * len(log)

    async def forget_archived(self) -> None:
        """Let Kafka's retention take what no snapshot needs any more."""
        for stage, topic in zip(STAGES, (self.world.topics.events, *self.world.topics.hops), strict=True):
            (name,) = names(self.world.agents[stage])
            if header := await self.snapshots.header(name):
                self.world.broker.logs[topic.name, 0][: header.offset] = [Message(b"gone", b"gone")] * header.offset

    def wipe(self) -> None:
        self.redis.kept.clear()

    async def paid(self, payments: list[Payment]) -> None:
        """Pay, and wait until all has been worked on."""
        self.pay(payments)
        await self.finish()

    async def go_on(self) -> None:
        """Have new owners take over, and wait until all has been worked on."""
        await self.start()
        await self.finish()

    async def finish(self) -> None:
        await self.world.finish()
        assert self.world.broker.all(self.world.topics.dlq.name) == []


def names(agent: StageAgent) -> list[str]:
    return [owned.name for owned in agent.owned.values()]
