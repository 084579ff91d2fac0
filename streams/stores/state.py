"""The port to the store that keeps checkpoints: one owner a partition, everything of a checkpoint at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

from streams.features.memory import StateRefused

States = Sequence[tuple[bytes, bytes]]
"""(entity id, state bytes) pairs."""

_NUMBER, _SEAL = 8, 16  # bytes


class Fenced(Exception):
    """The partition is no more as this owner left it: it must stop writing, and its next owner goes on from there.

    Another worker has claimed it since, or the store came back without the last of what it had kept.
    """


class StoreUnavailable(ConnectionError):
    """The store does not answer; the message names it. What was to be written may or may not have been."""


class StoreRefused(Exception):
    """The store does not let this process do what it must: trying again is no use. The message names the setting."""


class SnapshotsUnavailable(StoreUnavailable):
    """The store of the snapshots does not answer."""


@dataclass(frozen=True)
class Checkpoint:
    """Where a partition's fold stands: the next input offset to read and the gate's marks (opaque bytes).

    `position` is the offset before which everything is folded or waits in the gate: never less than `offset`, and
    of two checkpoints of one log the later has the higher one.
    """

    offset: int
    marks: bytes
    position: int = -1

    def sealed(self, *place: object) -> bytes:
        """Return the checkpoint as bytes that are good in one `place` only: offset, position i64 · marks · checksum."""
        numbers = (number.to_bytes(_NUMBER, "little", signed=True) for number in (self.offset, self.position))
        body = b"".join(numbers) + self.marks
        return body + _seal(body, place)

    @classmethod
    def opened(cls, record: bytes, *place: object) -> "Checkpoint":
        """Return what was sealed in `place`; raise StateRefused of anything else.

        >>> Checkpoint.opened(Checkpoint(7, b"marks").sealed("p", 3), "p", 3)
        Checkpoint(offset=7, marks=b'marks', position=-1)
        >>> Checkpoint.opened(Checkpoint(7, b"marks").sealed("p", 3), "p", 4)
        Traceback (most recent call last):
        streams.features.memory.StateRefused: damaged (its checksum does not fit)
        """
        body, seal = record[:-_SEAL], record[-_SEAL:]
        if len(body) < 2 * _NUMBER or seal != _seal(body, place):
            raise StateRefused("damaged (its checksum does not fit)")
        parts = body[:_NUMBER], body[_NUMBER : 2 * _NUMBER]
        offset, position = (int.from_bytes(part, "little", signed=True) for part in parts)
        return cls(offset, body[2 * _NUMBER :], position)


def _seal(body: bytes, place: tuple[object, ...]) -> bytes:
    return blake2b(body, digest_size=_SEAL, key=blake2b(repr(place).encode(), digest_size=32).digest()).digest()


@dataclass(frozen=True)
class Claim:
    """Ownership of a partition: the epoch to write under, and the last checkpoint, None where there is none.

    `refused` names the place of a checkpoint that could not be used; then the partition begins anew.
    """

    epoch: int
    checkpoint: Checkpoint | None
    refused: str | None = None


class StateStore(Protocol):
    """Checkpoints of partitions, each named by a string such as `fraud.customer.0123456789abcdef.3`.

    A partition without a checkpoint begins a new *generation*: no state of an earlier one is ever found again.
    """

    async def claim(self, partition: str) -> Claim:
        """Become the owner: raise the epoch, so that every former owner is fenced.

        A checkpoint that is not as it was written is set aside.
        """

    async def load(self, partition: str, epoch: int, entities: Sequence[bytes]) -> list[bytes | None]:
        """Return the state bytes of each entity, None of one that was never kept, as of the owner's last save.

        Raises Fenced like `save`: what another owner keeps, or a store that has lost writes, is not to be folded.
        """

    async def save(self, partition: str, epoch: int, checkpoint: Checkpoint, states: States) -> None:
        """Keep the checkpoint with the states that changed, all or nothing.

        Raises Fenced under an old epoch, and where the store has lost what this owner knows to be kept.
        """

    async def set_aside(self, partition: str, epoch: int, entity: bytes) -> str:
        """Put an entity's unfit state away, and the checkpoint with it, and return where they are.

        The owner is fenced by that; the next one begins a new generation.
        """

    async def read(self, partition: str, entities: Sequence[bytes]) -> list[bytes | None]:
        """Return the state bytes of each entity in the generation there is now, for who owns nothing."""

    async def close(self) -> None:
        """Give the connections back."""


class TrackingStore(StateStore, Protocol):
    """A StateStore that also knows which entities have changed since they were last archived.

    Changes are noted as states are saved. A round of archiving takes what was noted before it (the *old* ones), while
    more comes in (the *recent* ones), and ends by forgetting the old ones; one that was broken off is part of the next.
    """

    async def put(self, partition: str, epoch: int, states: States) -> None:
        """Keep states that are in the archive, of a partition without a checkpoint; they count once one follows."""

    async def begin_round(self, partition: str, epoch: int) -> None:
        """Make what was noted so far the old ones. Raises Fenced."""

    async def changed(self, partition: str, epoch: int, recent: bool, cursor: int = 0) -> tuple[int, list[bytes]]:
        """Return some recent or else old entities, maybe some of them again, and where to go on, 0 at the end.

        Raises Fenced: what the next owner notes is of another round.
        """

    async def end_round(self, partition: str, epoch: int) -> None:
        """Forget the old ones. Raises Fenced."""
