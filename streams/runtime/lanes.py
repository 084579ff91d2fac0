"""Lanes: a partition's batches one after the other, partitions side by side, offsets committed when work is done.

For agents whose only state is in their outputs. The order of effects, for each partition:

1. `work(batch)` has the outputs of what comes before an offset kept elsewhere, and yields that offset;
2. the offset is committed to Kafka, where the next owner continues: again and again until that has worked.

A crash before 2 does the work since the last offset again, so the work must be idempotent or its receivers drop
what they have seen. One partition that has to wait (a label whose event is not there yet) holds up no other; its
work yields the same offset again now and then, as a sign of life, or None where it could as well take the next batch.
"""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from faust.types import TP

from streams.runtime.batches import EARLIEST, Batch, BatchApp
from streams.runtime.health import Standing

WAITING = 1  # batches beside the one being worked on
HANDOVER_SECONDS = 2.0  # for the batch in hand, when partitions are given up
COMMIT_AGAIN_SECONDS = 0.5

Work = Callable[[Batch], AsyncGenerator[int | None, None]]


class Lanes:
    """Calls `work` for the batches of one topic, in the order of each partition; `put` is the agent's handler.

    `done` has the next offset of each partition in this worker's hands.
    """

    def __init__(self, app: BatchApp, work: Work) -> None:
        self.done: dict[TP, int] = {}
        self._app = app
        self._work = work
        self._waiting: dict[TP, deque[Batch]] = defaultdict(deque)
        self._tasks: dict[TP, asyncio.Task[None]] = {}
        self._beats: Counter[TP] = Counter()
        self._patient: set[TP] = set()  # lanes that wait for what is not there yet
        self._failed = False

    async def put(self, batch: Batch) -> None:
        """Queue a batch and return at once."""
        waiting = self._waiting[batch.tp]
        waiting.append(batch)
        if len(waiting) > WAITING:
            self._app.pause([batch.tp])
        if batch.tp not in self._tasks and not self._failed:
            self._tasks[batch.tp] = asyncio.create_task(self._run(batch.tp))

    def standing(self, tp: TP, taken: int) -> Standing:
        """Return how far a partition is that has been taken to the offset `taken`; who waits is not behind."""
        busy = tp in self._tasks and tp not in self._patient
        return Standing(self.done.get(tp, EARLIEST) if busy else taken, self._beats[tp])

    async def give_up(self) -> None:
        """Finish the batches in hand if they finish soon, drop the others; nothing dropped was committed."""
        self._waiting.clear()
        for tp in self._patient & self._tasks.keys():
            self._tasks[tp].cancel()
        tasks = list(self._tasks.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=HANDOVER_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self.done.clear()

    async def _run(self, tp: TP) -> None:
        try:
            while self._waiting[tp]:
                batch = self._waiting[tp].popleft()
                self._app.resume([tp])
                async with aclosing(self._work(batch)) as steps:
                    async for next_offset in steps:
                        await self._note(tp, next_offset)
                        if next_offset is None and self._waiting[tp]:
                            break
        except Exception as error:
            self._failed = True  # a later batch must not be committed past this one
            await self._app.crash(error)
        finally:
            self._patient.discard(tp)
            del self._tasks[tp]

    async def _note(self, tp: TP, next_offset: int | None) -> None:
        """Commit an offset; nothing more of the partition is done before that has worked."""
        self._beats[tp] += 1
        if next_offset is None or next_offset == self.done.get(tp):
            self._patient.add(tp)
            return
        self._patient.discard(tp)
        while not await self._app.commit_positions({tp: next_offset}):  # noqa: ASYNC110  # it has no event
            await asyncio.sleep(COMMIT_AGAIN_SECONDS)
        self.done[tp] = next_offset
