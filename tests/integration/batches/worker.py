"""The worker under test in this folder: a small program of Faust agents, or an app of the test's process.

It keeps what design D2 asks for in files: per partition the values folded so far and the offset after them, replaced
together.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

from faust.types import TP

from streams.runtime.batches import Batch, BatchApp, Ownership, create_app
from streams.runtime.worker import run

ROOT = Path(__file__).parents[3]


class Worker:
    """A worker process; everything it writes to stderr is in `said`."""

    def __init__(self, kafka: str, folder: Path, *topics: str) -> None:
        self._log = (folder / f"{uuid.uuid4().hex}.log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, __file__, kafka, str(folder), *topics],
            stderr=self._log,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    @property
    def said(self) -> str:
        return Path(self._log.name).read_text()

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(40)


def folded(folder: Path, topic: str) -> list[str]:
    """Every value that the checkpoints of a topic hold."""
    checkpoints = [json.loads(file.read_text()) for file in folder.glob(f"{topic}-*.json")]
    return [value for checkpoint in checkpoints for value in checkpoint["values"]]


@contextlib.asynccontextmanager
async def started(*apps: BatchApp) -> AsyncIterator[None]:
    """Apps of this process, inside the block and for at most a minute."""
    async with asyncio.timeout(60), contextlib.AsyncExitStack() as stack:
        for app in apps:
            stack.push_async_callback(app.stop)
            await app.start()
        yield


async def nowhere(_: set[TP]) -> dict[TP, int]:
    return {}


# The worker under test


def worker(kafka: str, folder: Path, *topics: str) -> int:
    say("imported")
    states: dict[TP, dict[str, list[str] | int]] = {}

    def file(tp: TP) -> Path:
        return folder / f"{tp.topic}-{tp.partition}.json"

    def checkpoint(partitions: set[TP]) -> None:
        for tp in partitions & states.keys():
            new = file(tp).with_suffix(f".{os.getpid()}")
            new.write_text(json.dumps(states[tp]))
            new.replace(file(tp))

    async def positions(partitions: set[TP]) -> dict[TP, int]:
        for tp in partitions:
            states[tp] = {"next": -1, "values": []}
            with contextlib.suppress(FileNotFoundError):
                states[tp] = json.loads(file(tp).read_text())
        return {tp: states[tp]["next"] for tp in partitions}

    async def assigned(partitions: set[TP]) -> None:
        say(f"has {len(partitions)} partitions")

    async def revoking(partitions: set[TP]) -> None:
        if (folder / "refuse").exists():
            raise PermissionError("not the owner")
        checkpoint(partitions)
        states.clear()
        say(f"gives up {len(partitions)} partitions")

    async def on_batch(batch: Batch) -> None:
        state = states[batch.tp]
        values = []
        for value in batch.records.values():
            if value == b"boom":
                raise ValueError("boom")
            values.append(value.decode())
            await asyncio.sleep(0)  # as a fold that waits for its state would
        assert batch.next_offset == len(values) + max(state["next"], 0), "a batch is missing or stale"
        state["values"] += values
        state["next"] = batch.next_offset

    app = create_app(
        f"group.{topics[0]}", kafka, Ownership(positions, revoking, assigned), session_timeout=6, rebalance_timeout=5
    )
    for topic in topics:
        app.on_batch(topic, topic)(on_batch)

    @app.timer(0.2)
    async def now_and_then() -> None:
        checkpoint(set(states))

    return run(app)


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(worker(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))
