"""The state store in memory: the reference that the Redis store must equal."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from streams.stores.state import Checkpoint, Claim, Fenced, States


@dataclass(frozen=True)
class Kept:
    """What the store has of a partition; a crash that loses writes brings an older one back, whole."""

    epoch: int
    number: int = 0  # of saves
    checkpoint: Checkpoint | None = None
    states: dict[bytes, bytes] = field(default_factory=dict)


NOTHING = Kept(epoch=0)


class MemoryStateStore:
    """Keeps everything in dictionaries; outlives the workers of a simulation, not its process.

    `kept` is what a server would have, the rest what the workers know of it.
    """

    def __init__(self) -> None:
        self.kept: dict[str, Kept] = {}
        self._epochs: dict[str, int] = {}
        self._saved: dict[str, int] = {}

    async def claim(self, partition: str) -> Claim:
        kept = self.kept.get(partition, NOTHING)
        epoch = self._epochs[partition] = self._epochs.get(partition, 0) + 1
        self.kept[partition] = replace(kept, epoch=epoch)
        self._saved[partition] = kept.number
        return Claim(epoch, kept.checkpoint)

    async def load(self, partition: str, entities: Sequence[bytes]) -> list[bytes | None]:
        states = self.kept.get(partition, NOTHING).states
        return [states.get(entity) for entity in entities]

    async def save(self, partition: str, epoch: int, checkpoint: Checkpoint, states: States) -> None:
        kept = self.kept.get(partition, NOTHING)
        if kept.epoch != epoch:
            raise Fenced(f"{partition}: epoch {epoch} is over, it is {kept.epoch} now")
        if kept.number < self._saved[partition]:
            raise Fenced(f"{partition}: the store has lost writes of epoch {epoch}")
        number = self._saved[partition] = kept.number + 1
        self.kept[partition] = Kept(epoch, number, checkpoint, {**kept.states, **dict(states)})

    async def close(self) -> None:
        return
