"""The port of the entity snapshots: what a partition is rebuilt from when Redis and Kafka no longer have it.

A row says what an entity's state was at a position of its partition's log (`Checkpoint.position`). That is a truth
which depends on the log alone: whoever writes a row again, late or twice, changes nothing. A header says that of
every entity that changed before its position the newest row up to there is the state at its position.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from streams.stores.state import Checkpoint, States


class EntitySnapshots(Protocol):
    """Snapshots of partitions, each named as in the StateStore.

    Raises SnapshotsUnavailable where the store does not answer, StateRefused of a header that is damaged.
    """

    async def header(self, partition: str) -> Checkpoint | None:
        """Return the header with the highest position, None where there is none."""

    def rows(self, partition: str, position: int) -> AsyncIterator[States]:
        """Yield the newest state up to `position` of every entity that has one."""

    async def write(self, partition: str, position: int, states: States) -> None:
        """Keep states as of `position`."""

    async def conclude(self, partition: str, header: Checkpoint) -> None:
        """Keep the header; one of a lower position than what is kept changes nothing."""

    async def prune(self, partition: str, position: int, entities: Sequence[bytes]) -> None:
        """Delete the rows before `position` of some entities."""

    async def close(self) -> None:
        """Give the connections back."""


class MemoryEntitySnapshots:
    """The reference: rows and headers in dictionaries."""

    def __init__(self) -> None:
        self.records: dict[str, tuple[int, bytes]] = {}
        self.states: dict[str, dict[bytes, dict[int, bytes]]] = defaultdict(lambda: defaultdict(dict))

    async def header(self, partition: str) -> Checkpoint | None:
        if partition not in self.records:
            return None
        position, record = self.records[partition]
        return Checkpoint.opened(record, partition, position)

    async def rows(self, partition: str, position: int) -> AsyncIterator[States]:
        for entity, versions in list(self.states[partition].items()):
            if known := [one for one in versions if one <= position]:
                yield [(entity, versions[max(known)])]

    async def write(self, partition: str, position: int, states: States) -> None:
        for entity, state in states:
            self.states[partition][entity][position] = state

    async def conclude(self, partition: str, header: Checkpoint) -> None:
        kept = self.records.get(partition, (-1, b""))
        self.records[partition] = max(kept, (header.position, header.sealed(partition, header.position)))

    async def prune(self, partition: str, position: int, entities: Sequence[bytes]) -> None:
        for entity in entities:
            versions = self.states[partition][entity]
            self.states[partition][entity] = {at: state for at, state in versions.items() if at >= position}

    async def close(self) -> None:
        return
