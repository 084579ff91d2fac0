"""Doubles of what a worker talks to that are slow, lose things, and answer late: the store, the archive, Kafka."""

import asyncio
from collections import deque
from dataclasses import replace
from typing import Any

from streams.runtime.sender import UndeliveredError
from streams.stores.entity_snapshots import MemoryEntitySnapshots
from streams.stores.memory import Kept, MemoryStateStore
from streams.stores.state import Checkpoint, StoreUnavailable
from tests.unit.streams.world import Broker, MemorySender, Message


class ShakyStore(MemoryStateStore):
    """A store that is slow to load, and whose next saves may fail, whether or not they were carried out."""

    def __init__(self) -> None:
        super().__init__()
        self.failing: deque[str] = deque()  # "lost" before it was carried out, or "answer lost" after
        self.snapshots: list[dict[str, Kept]] = [{}]

    async def load(self, *args: Any) -> list[bytes | None]:
        await asyncio.sleep(0)
        found = await super().load(*args)
        await asyncio.sleep(0)
        return found

    async def save(self, *args: Any) -> None:
        await asyncio.sleep(0)
        failure = self.failing.popleft() if self.failing else ""
        if failure != "lost":
            await super().save(*args)
        if failure:
            raise StoreUnavailable(failure)

    def bring_back(self, snapshot: dict[str, Kept], name: str) -> None:
        """Have of a partition what a snapshot has, which may be nothing."""
        self.kept.pop(name, None)
        if name in snapshot:
            self.kept[name] = snapshot[name]

    def flip(self, name: str, which: int) -> bool:
        """Damage an entity's state in a partition; return whether there was one."""
        kept = self.kept.get(name)
        if not kept or not kept.states:
            return False
        entity = sorted(kept.states)[which % len(kept.states)]
        state = bytearray(kept.states[entity])
        state[which % len(state)] ^= 1 << which % 8
        self.kept[name] = replace(kept, states={**kept.states, entity: bytes(state)})
        return True


class SlowSnapshots(MemoryEntitySnapshots):
    """Snapshots between whose steps others may take theirs."""

    async def header(self, *args: Any) -> Checkpoint | None:
        await asyncio.sleep(0)
        return await super().header(*args)

    async def write(self, *args: Any) -> None:
        await asyncio.sleep(0)
        await super().write(*args)

    async def conclude(self, *args: Any) -> None:
        await asyncio.sleep(0)
        await super().conclude(*args)

    async def prune(self, *args: Any) -> None:
        await asyncio.sleep(0)
        await super().prune(*args)


class PatchySender(MemorySender):
    """Writes the batches of one target in their order, those of several in any, acknowledged or not, or twice."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker, automatic=False)

    def _hand_over(self, topic: str, partition: int, messages: list[Message]) -> "asyncio.Future[object]":
        if self._failed:
            raise UndeliveredError("refused")
        return super()._hand_over(topic, partition, messages)

    def write(self, which: int, most: int, acknowledged: bool = True) -> int:
        """Write up to so many batches of a target; one whose acknowledgement is lost will be written again."""
        targets = sorted({(topic, partition) for _, topic, partition, _ in self._pending})
        if not targets:
            return 0
        target = targets[which % len(targets)]
        going = [one for one in self._pending if one[1:3] == target][:most]
        for ack, *_, messages in going:
            self.broker.logs[target] += messages
            if acknowledged:
                ack.set_result(None)
        if acknowledged:
            self._pending = [one for one in self._pending if not one[0].done()]
        return len(going)
