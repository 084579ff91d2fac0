"""The state store in memory: the reference that the Redis store must equal."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from streams.features.table import StateRefused
from streams.stores.state import Checkpoint, Claim, Fenced, States


@dataclass(frozen=True)
class Kept:
    """What the store has of a partition; a crash that loses writes brings an older one back, whole.

    `record` is the sealed checkpoint of save `number`; `recent` and `old` are what has changed.
    """

    epoch: int
    number: int = 0
    record: bytes | None = None
    states: dict[bytes, bytes] = field(default_factory=dict)
    recent: frozenset[bytes] = frozenset()
    old: frozenset[bytes] = frozenset()


NOTHING = Kept(epoch=0)


class MemoryStateStore:
    """Keeps everything in dictionaries; outlives the workers of a simulation, not its process.

    `kept` is what a server would have, `refused` what was set aside, the rest what the workers know of it.
    """

    def __init__(self) -> None:
        self.kept: dict[str, Kept] = {}
        self.refused: dict[str, Kept] = {}
        self._epochs: dict[str, int] = {}
        self._saved: dict[tuple[str, int], int] = {}  # of each claim, what it knows to be kept

    async def claim(self, partition: str) -> Claim:
        kept = self.kept.get(partition, NOTHING)
        epoch = self._epochs[partition] = self._epochs.get(partition, 0) + 1
        try:
            checkpoint = None if kept.record is None else Checkpoint.opened(kept.record, partition, kept.number)
            refused = None
        except StateRefused:
            checkpoint, refused = None, self._refuse(partition, kept)
        self.kept[partition] = replace(kept, epoch=epoch) if checkpoint else Kept(epoch, kept.number)
        self._saved[partition, epoch] = kept.number
        return Claim(epoch, checkpoint, refused)

    async def load(self, partition: str, epoch: int, entities: Sequence[bytes]) -> list[bytes | None]:
        self._owned(partition, epoch)
        return await self.read(partition, entities)

    async def save(self, partition: str, epoch: int, checkpoint: Checkpoint, states: States) -> None:
        kept = self._owned(partition, epoch)
        number = self._saved[partition, epoch] = kept.number + 1
        record, changed = checkpoint.sealed(partition, number), dict(states)
        recent = kept.recent | changed.keys()
        self.kept[partition] = Kept(epoch, number, record, {**kept.states, **changed}, recent, kept.old)

    async def set_aside(self, partition: str, epoch: int, entity: bytes) -> str:
        kept = self._owned(partition, epoch)
        # Nobody has epoch 0, so the owner is fenced.
        self.kept[partition] = Kept(epoch=0, number=kept.number)
        return self._refuse(partition, replace(kept, states={entity: kept.states[entity]}))

    async def read(self, partition: str, entities: Sequence[bytes]) -> list[bytes | None]:
        states = self.kept.get(partition, NOTHING).states
        return [states.get(entity) for entity in entities]

    async def put(self, partition: str, epoch: int, states: States) -> None:
        kept = self._owned(partition, epoch)
        self.kept[partition] = replace(kept, states={**kept.states, **dict(states)})

    async def begin_round(self, partition: str, epoch: int) -> None:
        kept = self._owned(partition, epoch)
        self.kept[partition] = replace(kept, recent=frozenset(), old=kept.old | kept.recent)

    async def changed(self, partition: str, epoch: int, recent: bool, cursor: int = 0) -> tuple[int, list[bytes]]:
        kept = self._owned(partition, epoch)
        return 0, sorted(kept.recent if recent else kept.old)[cursor:]

    async def end_round(self, partition: str, epoch: int) -> None:
        self.kept[partition] = replace(self._owned(partition, epoch), old=frozenset())

    async def close(self) -> None:
        return

    def _owned(self, partition: str, epoch: int) -> Kept:
        kept = self.kept.get(partition, NOTHING)
        if kept.epoch > epoch:
            raise Fenced(f"{partition}: epoch {epoch} is over, it is {kept.epoch} now")
        if kept.epoch < epoch or kept.number < self._saved.get((partition, epoch), 0):
            raise Fenced(f"{partition}: the store has lost writes of epoch {epoch}")
        return kept

    def _refuse(self, partition: str, kept: Kept) -> str:
        place = f"{{{partition}}}:refused:{len(self.refused)}"
        self.refused[place] = kept
        return place
