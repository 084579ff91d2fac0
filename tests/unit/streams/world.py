"""Two stages in memory: real agents around a broker that is a list, with crashes and acknowledgements at will."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.codec import encode
from schemas.events import WATERMARK_HEADER, Watermark
from streams.agents.scoring import ServingModel
from streams.agents.stage import StageAgent
from streams.metrics import Metrics
from streams.models.compiled import scorer
from streams.models.recipes import RECIPES
from streams.runtime.batches import Batch
from streams.runtime.checkpoint import checkpoint_all
from streams.runtime.hop import HopFormat, HopRows
from streams.runtime.partitioner import partition_of
from streams.runtime.records import Header, Records, Spans, build, parse
from streams.runtime.sender import UndeliveredError
from streams.stores.memory import MemoryStateStore
from streams.stores.state import StateStore
from streams.usecases import FRAUD

NOW = 1_700_000_000_000
CUSTOMER, TERMINAL = 0, 1
HOPS = HopFormat(FRAUD.features, TERMINAL)
NAMES = FRAUD.features.names
MODEL = ServingModel("logistic@0", scorer(RECIPES[FRAUD.recipes[0]].make(NAMES), NAMES), NOW)


@dataclass(frozen=True)
class Message:
    """A record in a log."""

    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()
    timestamp: int = NOW


class Broker:
    """Partitions are lists; an offset is an index."""

    def __init__(self) -> None:
        self.logs: dict[tuple[str, int], list[Message]] = defaultdict(list)

    def fetch(self, topic: str, partition: int, offset: int, most: int) -> Batch | None:
        """At most so many records from `offset` on, None at the end."""
        found = self.logs[topic, partition][offset : offset + most]
        if not found:
            return None
        end = offset + len(found)
        records = Records.of(
            [one.key for one in found],
            [one.value for one in found],
            range(offset, end),
            [one.timestamp for one in found],
            [one.headers for one in found],
        )
        return Batch(topic, partition, records, end, 0)

    def all(self, topic: str) -> list[Message]:
        """Every record of a topic, partition after partition."""
        return [message for (name, _), log in sorted(self.logs.items()) if name == topic for message in log]


class MemorySender:
    """What a stage asks of the sender; unless `automatic`, nothing is written or acknowledged before `deliver`."""

    def __init__(self, broker: Broker, automatic: bool = True) -> None:
        self.broker, self.automatic = broker, automatic
        self._pending: list[tuple[asyncio.Future[object], str, int, list[Message]]] = []
        self._failed = False

    def send_batch(self, topic: str, partition: int, batch: bytes | memoryview) -> "asyncio.Future[object]":
        records, _ = parse(bytes(batch), 0)
        rows = zip(records.keys(), records.values(), records.timestamps.tolist(), strict=True)
        return self._hand_over(topic, partition, [Message(key, value, (), time) for key, value, time in rows])

    def send_records(
        self,
        topic: str,
        partition: int,
        keys: Spans,
        values: Spans,
        timestamps: NDArray[np.int64],
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        for batch in build(keys, values, timestamps, rows):
            self.send_batch(topic, partition, batch)

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[Header] = ()
    ) -> "asyncio.Future[object]":
        return self._hand_over(topic, 0, [Message(key, value, tuple(headers))])

    async def send_many(
        self,
        topic: str,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        headers: Sequence[Sequence[Header]],
    ) -> None:
        records = zip(keys, values, headers, strict=True)
        self._hand_over(topic, 0, [Message(key, value, tuple(mine)) for key, value, mine in records])

    def _hand_over(self, topic: str, partition: int, messages: list[Message]) -> "asyncio.Future[object]":
        ack: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._pending.append((ack, topic, partition, messages))
        if self.automatic:
            self.deliver()
        return ack

    def deliver(self, most: int | None = None, acknowledged: bool = True) -> None:
        """Write the first `most` batches handed over (all by default), and acknowledge them or not."""
        going, self._pending = self._pending[:most], self._pending[len(self._pending[:most]) :]
        for ack, topic, partition, messages in going:
            self.broker.logs[topic, partition] += messages
            if acknowledged:
                ack.set_result(None)

    def lose(self) -> None:
        """Let Kafka refuse what is under way."""
        self._failed = True
        for ack, *_ in self._pending:
            ack.set_result(None)
        self._pending.clear()

    async def room(self) -> None:
        return

    @property
    def pending(self) -> int:
        return len(self._pending)

    def mark(self) -> "frozenset[asyncio.Future[object]]":
        return frozenset(ack for ack, *_ in self._pending)

    async def acked(self, mark: "frozenset[asyncio.Future[object]]") -> None:
        if mark:
            await asyncio.wait(mark)
        if self._failed:
            raise UndeliveredError("refused")


class World:
    """Both stages of card fraud over `partitions`, each run by one worker that may die at any moment."""

    def __init__(self, partitions: int, store: StateStore | None = None) -> None:
        self.partitions, self.topics = partitions, FRAUD.topics(partitions)
        self.broker, self.store = Broker(), store or MemoryStateStore()
        self.metrics = Metrics("worker")
        self.agents: dict[int, StageAgent] = {}
        self.senders: dict[int, MemorySender] = {}
        self.positions: dict[tuple[int, int], int] = {}

    async def start(self, stage: int, automatic: bool = True) -> StageAgent:
        """Give every partition of a stage to a new worker; the old one, if any, is not told."""
        sender = self.senders[stage] = MemorySender(self.broker, automatic)
        agent = self.agents[stage] = StageAgent(
            FRAUD, stage, self.topics, sender, self.store, self.metrics, 0, clock=lambda: NOW / 1000  # type: ignore[arg-type]
        )  # fmt: skip
        agent.model = MODEL
        for partition in range(self.partitions):
            self.positions[stage, partition] = max(0, await agent.claim(partition))
        return agent

    async def crash(self, stage: int, written: int = 0) -> None:
        """Kill a stage's worker; of what it had not been acknowledged `written` batches reach Kafka. Start another."""
        self.senders[stage].deliver(written, acknowledged=False)
        await self.start(stage, self.senders[stage].automatic)

    async def step(self, stage: int, partition: int, most: int = 1 << 30) -> bool:
        """Let a stage work on a batch; return whether there was one."""
        agent, at = self.agents[stage], self.positions[stage, partition]
        batch = self.broker.fetch(agent.topic.name, partition, at, most)
        if batch is not None:
            await agent.on_batches([batch])
            self.positions[stage, partition] = batch.next_offset
        return batch is not None

    async def checkpoint(self, stage: int) -> None:
        owned = list(self.agents[stage].owned.values())
        await checkpoint_all(owned, self.senders[stage], self.metrics)  # type: ignore[arg-type]

    async def finish(self) -> None:
        """Acknowledge everything, work until nothing is left, and keep it."""
        for stage in (CUSTOMER, TERMINAL):
            self.senders[stage].automatic = True
            self.senders[stage].deliver()
            for partition in range(self.partitions):
                while await self.step(stage, partition, 7):
                    pass
            await self.checkpoint(stage)

    # What producers and the join send.

    def event(self, fields: dict[str, object]) -> None:
        key = str(fields["customer_id"]).encode()
        self.broker.logs[self.topics.events.name, self.place(key)].append(Message(key, encode(fields)))

    def promise_events(self, time: int | None) -> None:
        for partition in range(self.partitions):
            message = Message(None, encode(Watermark(time)), ((WATERMARK_HEADER, b"1"),))
            self.broker.logs[self.topics.events.name, partition].append(message)

    def hop(self, partition: int, rows: HopRows) -> None:
        values = HOPS.encode(rows).to_list()
        self.broker.logs[self.topics.hops[0].name, partition] += [Message(None, value) for value in values]

    def place(self, key: bytes) -> int:
        return int(partition_of(Spans.of([key]), self.partitions)[0])

    # What came of it.

    def states(self, stage: int) -> dict[bytes, bytes]:
        """Every entity's state in the workers' memory."""
        tables = [owned.table for owned in self.agents[stage].owned.values()]
        return {key: state for table in tables for key, state in table.states().items()}

    async def kept(self, stage: int, keys: Sequence[bytes]) -> dict[bytes, bytes | None]:
        """The states in the store, of whichever partition has them."""
        found = dict[bytes, bytes | None]()
        for owned in self.agents[stage].owned.values():
            mine = [key for key in keys if self.place(key) == self._number(stage, owned.name)]
            found |= dict(zip(mine, await self.store.read(owned.name, mine), strict=True))
        return found

    def _number(self, stage: int, name: str) -> int:
        return next(number for number, owned in self.agents[stage].owned.items() if owned.name == name)


def label_rows(terminal: str, event_id: str, label: int, time: int, partition: int, offset: int) -> HopRows:
    """One label update as the join sends it."""
    return HOPS.label_updates(
        TERMINAL, [terminal], [event_id], [label], np.array([time]), partition, np.array([offset])
    )
