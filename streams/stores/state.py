"""The port to the store that keeps checkpoints: one owner a partition, everything of a checkpoint at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

States = Sequence[tuple[bytes, bytes]]
"""(entity id, state bytes) pairs."""


class Fenced(Exception):
    """The partition is no more as this owner left it: it must stop writing, and its next owner goes on from there.

    Another worker has claimed it since, or the store came back without the last of what it had kept.
    """


class StoreUnavailable(ConnectionError):
    """The store does not answer; the message names it. What was to be written may or may not have been."""


@dataclass(frozen=True)
class Checkpoint:
    """Where a partition's fold stands: the next input offset to read and the gate's marks (opaque bytes)."""

    offset: int
    marks: bytes


@dataclass(frozen=True)
class Claim:
    """Ownership of a partition: the epoch to write under, and the last checkpoint, None where there is none."""

    epoch: int
    checkpoint: Checkpoint | None


class StateStore(Protocol):
    """Checkpoints of partitions, each named by a string such as `fraud.customer.0123456789abcdef.3`."""

    async def claim(self, partition: str) -> Claim:
        """Become the owner: raise the epoch, so that every former owner is fenced."""

    async def load(self, partition: str, entities: Sequence[bytes]) -> list[bytes | None]:
        """Return the state bytes of each entity, None of one that was never kept."""

    async def save(self, partition: str, epoch: int, checkpoint: Checkpoint, states: States) -> None:
        """Keep the checkpoint with the states that changed, all or nothing.

        Raises Fenced under an old epoch, and where the store has lost what this owner knows to be kept.
        """

    async def close(self) -> None:
        """Give the connections back."""
