"""Sending letters back to where they came from.

The order of effects, for some letters at a time:

1. each is sent to the partition it was read from, with its bytes, key and headers and its attempts; Kafka
   acknowledges all of them;
2. a receipt in the DLQ says which they were.

A crash between the two leaves letters that a second replay sends again, under the same event ids. Whatever
fails again comes back as a new letter, with one attempt more.
"""

from collections import Counter
from collections.abc import AsyncIterable, Callable, Container, Mapping
from dataclasses import dataclass, field

from schemas.topics import Topic
from services.dlq.letter import DONE, PARKED, UNFIT, WAITING, Letter, receipt, standing
from streams.runtime.dlq import MAX_ATTEMPTS
from streams.runtime.sender import Sender

LETTERS_AT_ONCE, BYTES_AT_ONCE = 500, 8 << 20


@dataclass
class Replay:
    """A replay of the letters in topic `dlq` to `topics` (by name), but for those whose offset is in `replayed`.

    `force` sends parked letters too; `taken` counts the letters handed to the sender, `sent` those with a receipt.
    """

    sender: Sender
    dlq: str
    topics: Mapping[str, Topic]
    replayed: Container[int]
    force: bool
    taken: int = field(default=0, init=False)
    sent: int = field(default=0, init=False)
    _left: Counter[str] = field(default_factory=Counter, init=False)
    _waiting: list[int] = field(default_factory=list, init=False)
    _bytes: int = field(default=0, init=False)

    async def run(self, letters: AsyncIterable[Letter], stopped: Callable[[], bool]) -> None:
        """Send back what waits among `letters`, until their end or until `stopped`.

        Raises UndeliveredError where Kafka does not take one.
        """
        if stopped():
            return
        async for letter in letters:
            state, _ = standing(letter, self.replayed, self.topics)
            if state == WAITING or (self.force and state == PARKED):
                await self._send(letter)
            else:
                self._left[state] += 1
            if stopped():
                break
        await self._settle()

    def counts(self) -> dict[str, int]:
        """Return how many letters were replayed now, and how many were left alone, by what they are."""
        return {
            "replayed": self.sent,
            "replayed_before": self._left[DONE],
            "parked": self._left[PARKED],
            "unfit": self._left[UNFIT],
        }

    def told(self) -> list[str]:
        """Return the same in words."""
        reasons = {
            DONE: "left alone: replayed before",
            PARKED: f"left alone: parked after {MAX_ATTEMPTS} attempts (--force sends them)",
            UNFIT: "left alone: they cannot be sent back as they came (list says why)",
        }
        left = [f"{self._left[state]} {reason}" for state, reason in reasons.items() if self._left[state]]
        return [f"{self.sent} replayed", *left]

    async def _send(self, letter: Letter) -> None:
        assert letter.source
        topic, partition, _ = letter.source
        await self.sender.send(topic, letter.key, letter.value, letter.returning(), partition)
        self.taken += 1
        self._waiting.append(letter.offset)
        self._bytes += letter.size()
        if len(self._waiting) >= LETTERS_AT_ONCE or self._bytes >= BYTES_AT_ONCE:
            await self._settle()

    async def _settle(self) -> None:
        if not self._waiting:
            return
        await self.sender.acked(self.sender.mark())
        value, headers = receipt(self._waiting)
        await self.sender.send(self.dlq, None, value, headers)
        await self.sender.acked(self.sender.mark())
        self.sent += len(self._waiting)
        self._waiting, self._bytes = [], 0
