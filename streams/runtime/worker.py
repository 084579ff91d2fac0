"""A batch app as a process: started, stopped by a signal, ended by the first failure."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext

import uvloop
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError

from schemas.topics import Topic
from streams.features.table import StateRefused
from streams.runtime.batches import BatchApp
from streams.runtime.connection import connection
from streams.runtime.known import partition_counts
from streams.runtime.sender import UndeliveredError
from streams.runtime.topics import KafkaUnavailable, TopicMismatch, unavailable, verify
from streams.stores.state import Fenced, StoreRefused

log = logging.getLogger(__name__)


class TopicMissing(Exception):
    """A topic that the worker reads or writes is not there; the message names it."""


EXPECTED = (
    KafkaError,
    KafkaUnavailable,
    TopicMismatch,
    TopicMissing,
    ConnectionError,
    Fenced,
    StateRefused,
    StoreRefused,
    UndeliveredError,
)
"""What may befall a sound worker: said in a line. Anything else is a fault of ours and shows where it is."""

SWITCH_SECONDS = 0.0005
"""How long one thread may keep the interpreter while another, as the Cassandra driver's, waits; by default 5 ms."""

STOP_SECONDS = 20.0
"""For the last batches, the last checkpoint and the group: more than the 10 s that a handover has."""

TELL_SECONDS = 10.0  # between two lines of aiokafka's about the same

GARBAGE_OBJECTS = 50_000
"""Allocations between two collections; a batch makes thousands that are gone without one."""

# Their errors are worth reading, their progress is not.
QUIET = ("faust", "mode", "aiokafka", "streams.runtime.consumer", "streams.runtime.thread", "streams.runtime.fetching")


GROUPS = "aiokafka.consumer.group_coordinator"


class Routine(logging.Filter):
    """Drops what aiokafka complains of whenever a group is made or changes, as it settles by itself.

    And what Faust says of a crash, with a traceback whatever it was: the worker's last line says it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record is worth telling."""
        message = str(record.msg)
        if record.name != GROUPS:
            return "Crashed reason=" not in message
        if message.startswith("Group Coordinator Request failed"):
            return not any(isinstance(one, GroupCoordinatorNotAvailableError) for one in record.args or ())
        # Whoever finds the coordinator dead has said why.
        return not message.startswith(
            ("Marking the coordinator dead", "Heartbeat failed for group %s because it is rebalancing")
        )


class Repeated(logging.Filter):
    """Drops what aiokafka says again within TELL_SECONDS, whatever the words filled in.

    While a broker is away it says so some two hundred times a second.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told_at: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record is worth telling."""
        if not record.name.startswith("aiokafka"):
            return True
        place = record.name, record.lineno
        if abs(record.created - self._told_at.get(place, float("-inf"))) < TELL_SECONDS:
            return False
        self._told_at[place] = record.created
        return True


Resources = Callable[[], AbstractAsyncContextManager[None]]
"""What the app's handlers need: entered before the app starts, left after it has stopped."""


def run(app: BatchApp, resources: Resources = nullcontext, topics: Iterable[Topic] = (), tls: bool = False) -> int:
    """Run the worker until SIGINT or SIGTERM (answers 0) or until something in it fails (answers 1).

    It does not start unless `topics`, and whatever else its agents read, are there as they are declared.
    On a signal the batches in hand are finished and the owner of the state makes its last checkpoint. On a
    failure nothing more is written: the last checkpoint stands, and whoever starts workers starts another. So it
    does where the end takes more than STOP_SECONDS, as something is away that it waits for: the process ends then (1).
    With `tls` the loop is asyncio's own: in uvloop's (0.23) one in fifty connections by TLS takes 30 s to close.
    """
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.addFilter(Routine())
        handler.addFilter(Repeated())
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        failure = (asyncio.run if tls else uvloop.run)(_run(app, resources, topics))
    except Exception as error:  # from the check or the resources
        failure = error
    if failure is None:
        return 0
    if isinstance(failure, EXPECTED):
        log.error("worker %s ends: %s", app.conf.id, failure)
    else:
        log.error("worker %s ends", app.conf.id, exc_info=failure)
    return 1


async def _run(app: BatchApp, resources: Resources, topics: Iterable[Topic]) -> BaseException | None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await _check(app, topics)
    async with resources():
        # What is imported and built by now stays; looking through it again and again would cost 100 ms each time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GARBAGE_OBJECTS)
        app.in_worker = True
        living = asyncio.create_task(_live(app))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([living, stopped], return_when=asyncio.FIRST_COMPLETED)
        failure = app.crash_reason or (living.exception() if living.done() else None)
        await _stop(app, failure)
        stopped.cancel()
        living.cancel()
        await asyncio.gather(stopped, living, return_exceptions=True)
    return failure or app.crash_reason


async def _stop(app: BatchApp, failure: BaseException | None) -> None:
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await app.stop()
    except TimeoutError:
        why = f"{failure}, and" if failure else "stopped, but"
        log.error("worker %s ends: %s not in good order within %.0f s", app.conf.id, why, STOP_SECONDS)
        os._exit(1)  # threads that still wait would keep the process


async def _live(app: BatchApp) -> None:
    await app.start()
    await app.wait_until_stopped()


async def _check(app: BatchApp, topics: Iterable[Topic]) -> None:
    """Raise if Kafka does not answer, which a Faust worker would wait for in silence, or has not these topics."""
    kafka = app.kafka
    declared = {topic.name: topic for topic in topics}
    client = AIOKafkaClient(**connection(kafka), request_timeout_ms=5000)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # the error raised says it all
    try:
        await client.bootstrap()
        there = await partition_counts(client, {*app.source_topics, *declared})
    except KafkaError as error:
        raise unavailable(kafka, error) from None
    finally:
        await client.close()
        logging.getLogger("aiokafka").setLevel(logging.WARNING)
    missing = sorted(name for name, count in there.items() if not count)
    if missing:
        raise TopicMissing(f"no topic named {', '.join(missing)} on Kafka at {kafka}")
    verify(declared.values(), there)
