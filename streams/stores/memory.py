"""The state store in memory: the reference that the Redis store must equal."""

from collections.abc import Sequence

from streams.stores.state import Checkpoint, Claim, Fenced, States


class MemoryStateStore:
    """Keeps everything in dictionaries; outlives the workers of a simulation, not its process."""

    def __init__(self) -> None:
        self._epochs: dict[str, int] = {}
        self._checkpoints: dict[str, Checkpoint] = {}
        self._states: dict[str, dict[bytes, bytes]] = {}

    async def claim(self, partition: str) -> Claim:
        self._epochs[partition] = self._epochs.get(partition, 0) + 1
        return Claim(self._epochs[partition], self._checkpoints.get(partition))

    async def load(self, partition: str, entities: Sequence[bytes]) -> list[bytes | None]:
        states = self._states.get(partition, {})
        return [states.get(entity) for entity in entities]

    async def save(self, partition: str, epoch: int, checkpoint: Checkpoint, states: States) -> None:
        if self._epochs.get(partition) != epoch:
            raise Fenced(f"{partition}: epoch {epoch} is over, it is {self._epochs.get(partition)} now")
        self._checkpoints[partition] = checkpoint
        self._states.setdefault(partition, {}).update(states)

    async def close(self) -> None:
        return
