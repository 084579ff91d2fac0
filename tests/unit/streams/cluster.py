"""A cluster in memory: several workers with real agents, a broker of lists, a store of dictionaries, and mishaps.

What takes a worker time is a task, and every action of a script lets each task go one step: anything may come
between anything. `story` has in words what was done.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.codec import encode
from schemas.events import WATERMARK_HEADER, Transaction, Watermark
from streams.agents.stage import StageAgent
from streams.features.table import StateRefused
from streams.metrics import Metrics
from streams.runtime.checkpoint import OwnedPartition, checkpoint_all, evict_all
from streams.runtime.hop import FROM_EVENTS, FROM_LABELS
from streams.runtime.partitioner import partition_of
from streams.runtime.records import Records, Spans
from streams.runtime.sender import UndeliveredError
from streams.stores.snapshot_store import SnapshotStore
from streams.stores.state import Fenced, StoreUnavailable
from streams.usecases import FRAUD
from tests.unit.streams.shaky import PatchySender, ShakyStore, SlowSnapshots
from tests.unit.streams.world import CUSTOMER, HOPS, MODEL, NOW, TERMINAL, Broker, Message, label_rows

STAGES = (CUSTOMER, TERMINAL)
METRICS = Metrics("worker")
ENDS_A_WORKER = (Fenced, StateRefused, UndeliveredError)
MOST_ROUNDS = 1000

Slot = tuple[int, int]
"""A stage and one of its partitions."""


class Worker:
    """A process with both stages; `positions` are the slots it believes to own, and where it reads."""

    def __init__(self, name: str, cluster: "Cluster") -> None:
        self.name = name
        self.sender = PatchySender(cluster.broker)
        self.positions: dict[Slot, int] = {}
        self.store = SnapshotStore(cluster.store, cluster.snapshots, kafka_has_all, lambda: None)
        self.agents = [
            StageAgent(FRAUD, stage, cluster.topics, self.sender, self.store, METRICS, 0, lambda: NOW / 1000)  # type: ignore[arg-type]
            for stage in STAGES
        ]
        self.tasks: dict[asyncio.Task[None], str] = {}  # by what it is: a stage's batch in hand or the checkpoint
        for agent in self.agents:
            agent.model = MODEL

    def busy(self, what: str) -> bool:
        return what in self.tasks.values()

    def begin(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        self.tasks[asyncio.get_running_loop().create_task(work)] = what

    async def checkpoint(self, slots: Sequence[Slot]) -> None:
        owned = [self.agents[stage].owned[partition] for stage, partition in slots]
        await checkpoint_all(owned, self.sender, METRICS)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Label:
    """What the join reads: a label, known at `time`, or without a terminal a promise."""

    terminal: str
    event_id: str
    time: int | None


async def kafka_has_all(_: str) -> int:
    return 0


class Cluster:
    """Workers over the partitions of both stages; each action is a method, and says what it did in `story`."""

    def __init__(self, partitions: int, store: ShakyStore) -> None:
        self.partitions, self.topics = partitions, FRAUD.topics(partitions)
        self.broker, self.store, self.snapshots = Broker(), store, SlowSnapshots()
        self.slots = [(stage, partition) for stage in STAGES for partition in range(partitions)]
        self.names: dict[Slot, str] = {}  # of the partitions in the store
        self.owners: dict[Slot, Worker] = {}  # as the group has it
        self.workers: list[Worker] = []  # the living, former owners included
        self.started = 0
        self.sources: list[tuple[int, int, int]] = []  # of the events: topic, partition, offset
        self.labels: list[list[Label]] = [[] for _ in range(partitions)]  # by the partition of the label topic
        self.told = [0] * partitions
        self.story: list[str] = []

    def tell(self, text: str) -> None:
        self.story.append(text)

    def place(self, key: str) -> int:
        return int(partition_of(Spans.of([key.encode()]), self.partitions)[0])

    # Inputs.

    def send(self, event: Transaction) -> None:
        log = self.broker.logs[self.topics.events.name, self.place(event.customer_id)]
        self.sources.append((FROM_EVENTS, self.place(event.customer_id), len(log)))
        log.append(Message(event.customer_id.encode(), encode(event)))

    def promise(self, time: int | None) -> None:
        """Say on every partition of both public topics that nothing before `time` will follow, or nothing at all."""
        message = Message(None, encode(Watermark(time)), ((WATERMARK_HEADER, b"1"),))
        for partition in range(self.partitions):
            self.broker.logs[self.topics.events.name, partition].append(message)
            self.labels[partition].append(Label("", "", time))

    def join(self, partition: int, most: int, again: int) -> None:
        """Let the join send labels of a partition to the terminals, after it has repeated the last few."""
        labels = self.labels[partition]
        first = max(0, self.told[partition] - again)
        self.told[partition] = end = min(self.told[partition] + most, len(labels))
        for offset, label in enumerate(labels[first:end], first):
            if label.terminal:
                rows = label_rows(label.terminal, label.event_id, 1, label.time or 0, partition, offset)
                targets = [self.place(label.terminal)]
            else:
                rows = HOPS.watermark(label.time, FROM_LABELS, partition, offset)
                targets = list(range(self.partitions))
            values = HOPS.encode(rows).to_list()
            for target in targets:
                self.broker.logs[self.topics.hops[0].name, target] += [Message(None, value) for value in values]
        if first < end:
            self.tell(f"the join sends labels {first} to {end - 1} of partition {partition}")

    # Workers come and go.

    def start(self) -> Worker:
        self.started += 1
        worker = Worker(f"w{self.started}", self)
        self.workers.append(worker)
        return worker

    async def give(self, slot: Slot, worker: Worker) -> None:
        """Let a worker claim a slot and read on where it says; its former owner is not told."""
        stage, partition = slot
        self.owners[slot] = worker
        while True:
            try:
                offset = await worker.agents[stage].claim(partition)
                break
            except StoreUnavailable as error:
                self.tell(f"{worker.name}: its claim of {called(slot)} fails, {error}")
        self.names[slot] = worker.agents[stage].owned[partition].name
        worker.positions[slot] = max(0, offset)
        self.tell(f"{worker.name} claims {called(slot)}, reads from {worker.positions[slot]}")

    def another(self, slot: Slot, which: int) -> Worker:
        """Return a worker that does not believe to own a slot, or a new one."""
        others = [worker for worker in self.workers if slot not in worker.positions]
        which %= len(others) + 1
        return others[which] if which < len(others) else self.start()

    async def hand_over(self, slot: Slot, worker: Worker) -> None:
        """Let the owner finish its batch, keep its last checkpoint, and give the slot to another."""
        owner = self.owners[slot]
        await self.settle(owner)
        if self.owners[slot] is not owner:  # it has died of it
            return
        owner.sender.deliver()
        try:
            await owner.checkpoint([slot])
        except StoreUnavailable:
            self.tell(f"{owner.name} gives {called(slot)} up without a checkpoint")
        except ENDS_A_WORKER as error:
            await self.die(owner, str(error))
            return
        owner.agents[slot[0]].release(slot[1])
        del owner.positions[slot]
        self.tell(f"{owner.name} gives {called(slot)} up")
        await self.give(slot, worker)

    async def settle(self, worker: Worker) -> None:
        """Let a worker finish what it has begun."""
        ticks = 0
        while worker in self.workers and worker.tasks:
            worker.sender.deliver()
            await self.tick()
            ticks += 1
            assert ticks < MOST_ROUNDS, "it never ends"

    async def die(self, worker: Worker, why: str) -> None:
        """End a worker, and start another that gets what it owned."""
        self.tell(f"{worker.name} ends: {why}")
        self.workers.remove(worker)
        for task in worker.tasks:
            task.cancel()
        await asyncio.gather(*worker.tasks, return_exceptions=True)
        orphans = [slot for slot, owner in self.owners.items() if owner is worker]
        if orphans:
            heir = self.start()
            for slot in orphans:
                await self.give(slot, heir)

    async def tick(self) -> None:
        """Let every task go a step further, and see to those that have ended."""
        await asyncio.sleep(0)
        for worker in list(self.workers):
            for task in [task for task in worker.tasks if task.done()]:
                what, error = worker.tasks.pop(task), task.exception()
                if isinstance(error, StoreUnavailable):
                    self.tell(f"{worker.name}: its {what} fails, {error}")
                elif isinstance(error, ENDS_A_WORKER):
                    await self.die(worker, str(error))
                    break
                elif error is not None:
                    raise error

    # What workers do.

    def work(self, worker: Worker, slot: Slot, most: int) -> bool:
        """Begin a batch, unless the stage has one in hand; return whether there was anything to do."""
        stage, partition = slot
        agent, what = worker.agents[stage], f"batch of {FRAUD.features.stages[stage].entity}"
        if worker.busy(what):
            return True
        batch = self.broker.fetch(agent.topic.name, partition, worker.positions[slot], most)
        if batch is None:
            return False
        self.tell(f"{worker.name} folds {called(slot)} {worker.positions[slot]} to {batch.next_offset - 1}")
        worker.positions[slot] = batch.next_offset
        worker.begin(what, agent.on_batches([batch]))
        return True

    def checkpoint(self, worker: Worker) -> None:
        """Begin a round of checkpoints."""
        if not worker.busy("checkpoint"):
            self.tell(f"{worker.name} begins its checkpoints")
            worker.begin("checkpoint", worker.checkpoint(list(worker.positions)))

    def acknowledge(self, worker: Worker, which: int, most: int, answered: bool = True) -> None:
        """Let Kafka write some of a worker's batches, and answer or not."""
        if count := worker.sender.write(which, most, answered):
            self.tell(f"Kafka writes {count} batches of {worker.name}" + ("" if answered else ", the answer is lost"))

    def refuse(self, worker: Worker) -> None:
        """Let Kafka refuse what a worker has under way."""
        if worker.sender.pending:
            self.tell(f"Kafka refuses {worker.sender.pending} batches of {worker.name}")
            worker.sender.lose()

    def evict(self, worker: Worker) -> None:
        """Let a worker drop from its memory whatever is kept."""
        if not worker.busy("evicting"):
            owned = [worker.agents[stage].owned[partition] for stage, partition in worker.positions]
            worker.begin("evicting", evict_all(owned, 0, METRICS))
            self.tell(f"{worker.name} drops from memory what is kept")

    def archive(self, worker: Worker) -> None:
        """Let a worker begin to bring the entity snapshots of its partitions up to date."""
        if not worker.busy("archiving"):
            self.tell(f"{worker.name} begins to archive")
            worker.begin("archiving", self._archive(worker, list(worker.positions)))

    async def _archive(self, worker: Worker, slots: Sequence[Slot]) -> None:
        for slot in slots:
            await worker.store.archive(self.names[slot])

    async def finish(self, lost: bool) -> None:
        """Let everybody work to the end; then let a last worker do so that has only what is kept, and reads it all.

        Or, where the store is `lost`, what was archived.
        """
        await self.work_off()
        if lost:
            self.restore(0, self.slots)
        heir = self.start()
        for slot in self.slots:
            await self.give(slot, heir)
        for slot in self.slots:
            owner, entities = self.owners[slot], list(self.states(slot[0]))
            owner.begin("loading", self.load(owner.agents[slot[0]].owned[slot[1]], entities))
            await self.settle(owner)
        await self.work_off()

    async def load(self, owned: OwnedPartition, entities: Sequence[bytes]) -> None:
        await owned.load(owned.missing(entities))

    async def work_off(self) -> None:
        """Let everybody work until nothing is left to do, and keep it."""
        for partition, labels in enumerate(self.labels):
            self.join(partition, len(labels), 0)
        self.store.failing.clear()
        moving, rounds = True, 0
        while moving:
            moving, rounds = False, rounds + 1
            assert rounds < MOST_ROUNDS, "it never ends"
            for worker in list(self.workers):
                for slot in list(worker.positions):
                    while worker in self.workers and slot in worker.positions and self.work(worker, slot, 1 << 30):
                        moving = True
                        await self.settle(worker)
            for worker in list(self.workers):
                before = self.store.kept.copy()
                if worker in self.workers and worker.positions:
                    self.checkpoint(worker)
                    await self.settle(worker)
                moving |= before != self.store.kept or worker not in self.workers

    # What befalls the store.

    def fail(self, how: str) -> None:
        """Let the next save fail: `lost` before it was carried out, `answer lost` after."""
        self.store.failing.append(how)

    def snapshot(self) -> None:
        self.store.snapshots.append(dict(self.store.kept))
        self.tell(f"the store takes snapshot {len(self.store.snapshots) - 1}")

    def restore(self, which: int, slots: Sequence[Slot]) -> None:
        """Bring some partitions back as a snapshot has them; the first is empty."""
        which %= len(self.store.snapshots)
        for slot in slots:
            self.store.bring_back(self.store.snapshots[which], self.names[slot])
            self.tell(
                f"the store restores {called(slot)} from snapshot {which}"
                if which
                else f"the store loses {called(slot)}"
            )

    def flip(self, slot: Slot, which: int) -> None:
        if self.store.flip(self.names[slot], which):
            self.tell(f"a state of {called(slot)} is damaged in the store")

    # What came of it.

    def states(self, stage: int) -> dict[bytes, bytes]:
        """Return every state of a stage in the store."""
        kept = [self.store.kept.get(name) for slot, name in self.names.items() if slot[0] == stage]
        return {key: state for one in kept if one for key, state in one.states.items()}

    def read(self, topic: str, partition: int) -> Records:
        """Return a whole log."""
        batch = self.broker.fetch(topic, partition, 0, 1 << 30)
        return batch.records if batch else Records.of([], [], [], [], [])


def called(slot: Slot) -> str:
    return f"{FRAUD.features.stages[slot[0]].entity}/{slot[1]}"
