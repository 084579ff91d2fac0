"""What the monitor hears from stores and Kafka, and what the process's health makes of it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import pytest
from faust.types import TP

from streams.metrics import Metrics
from streams.runtime import monitor as monitor_module
from streams.runtime.health import Health, Log, Standing
from streams.runtime.monitor import Monitor
from streams.usecases import FRAUD

PARTITION = TP("fraud.transactions", 0)


class App:
    """What the monitor asks of a BatchApp, written down."""

    def __init__(self) -> None:
        self.crashes: list[BaseException] = []

    async def crash(self, error: BaseException) -> None:
        self.crashes.append(error)


class Logs:
    """A Kafka whose partition has ten records, or that does not answer at all."""

    def __init__(self) -> None:
        self.answers = True
        self.asked = 0

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def logs(self, topics: object) -> dict[TP, Log]:
        self.asked += 1
        if not self.answers:
            await asyncio.Event().wait()
        return {PARTITION: Log(0, 10)}


class World:
    """A monitor that asks all the time, around a Kafka and a store as the test has them."""

    def __init__(self, ping: Callable[[], Awaitable[None]]) -> None:
        self.app, self.kafka = App(), Logs()
        self.health = Health(("kafka", "redis"), Metrics("test"), 60.0)
        self.standings: Mapping[TP, Standing] | None = {PARTITION: Standing(10)}
        self.monitor = Monitor(self.health, "127.0.0.1:1", FRAUD.topics(1), self._standings, {"redis": ping})
        self.monitor._offsets = self.kafka  # type: ignore[assignment]

    def _standings(self) -> Mapping[TP, Standing]:
        if self.standings is None:
            raise LookupError("a fault of ours")
        return self.standings

    def reasons(self) -> list[str]:
        found: list[str] = self.health.readyz().content["reasons"]
        return found

    async def until(self, truth: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not truth():  # noqa: ASYNC110  # what is awaited has no event
                await asyncio.sleep(0.001)

    def run(self, scenario: Callable[[], Awaitable[None]]) -> None:
        async def watched() -> None:
            async with self.monitor.running(self.app):  # type: ignore[arg-type]
                await scenario()

        asyncio.run(watched())


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"ASK_SECONDS": 0.001, "PROMPT_SECONDS": 0.05, "BEAT_SECONDS": 0.001}.items():
        monkeypatch.setattr(monitor_module, name, seconds)


async def well() -> None:
    """A ping that is answered."""


def test_ready_where_everything_answers() -> None:
    """The event loop beats, Kafka and the store answer, the partition is at its end."""
    world = World(well)
    assert world.reasons() == ["starting"]

    async def scenario() -> None:
        await world.until(lambda: world.reasons() == [])

    world.run(scenario)
    assert world.app.crashes == []


@pytest.mark.parametrize("how", ["raises", "hangs"])
def test_a_store_that_does_not_answer_is_away_until_it_does(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """An error, which is told, or a silence, and it is asked again; an answer brings it back."""
    back = asyncio.Event()

    async def ping() -> None:
        if how == "hangs":
            await back.wait()
        elif not back.is_set():
            raise ConnectionError("refused")

    world = World(ping)

    async def scenario() -> None:
        await world.until(lambda: world.reasons() == ["redis is away"])
        back.set()
        await world.until(lambda: world.reasons() == [])

    world.run(scenario)
    told = [record.getMessage() for record in caplog.records]
    assert told == (["redis is away, trying again: refused"] if how == "raises" else [])


def test_a_kafka_that_is_silent_is_away() -> None:
    """Its partitions stand as they were seen last."""
    world = World(well)

    async def scenario() -> None:
        await world.until(lambda: world.reasons() == [])
        world.kafka.answers = False
        await world.until(lambda: world.reasons() == ["kafka is away"])

    world.run(scenario)


def test_the_event_loop_beats() -> None:
    """While the monitor runs nothing but the loop itself keeps it from beating."""
    world = World(well)

    async def scenario() -> None:
        for _ in range(3):
            asked = world.kafka.asked
            world.health.advance(59)
            await world.until(lambda asked=asked: world.kafka.asked > asked + 1)  # type: ignore[misc]
        assert world.health.stalled() is None

    world.run(scenario)


def test_a_monitor_that_fails_ends_the_process() -> None:
    """Else nothing would ever be found wrong."""
    world = World(well)
    world.standings = None

    async def scenario() -> None:
        await world.until(lambda: bool(world.app.crashes))

    world.run(scenario)
    assert isinstance(world.app.crashes[0], LookupError)
