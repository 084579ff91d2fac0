"""The bootstrap of the feedback service: a producer, the door, and its health, until a signal comes."""

import asyncio
import logging
import signal
from collections.abc import Sequence

from aiohttp import web
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from schemas.codec import encode
from schemas.events import Label
from schemas.topics import Topic
from services.feedback.door import ACK_SECONDS, Door
from streams.metrics import Answer, Metrics
from streams.runtime.connection import connection
from streams.runtime.health import Health
from streams.settings import Settings

log = logging.getLogger(__name__)

LINGER_MS = 2
BEAT_SECONDS, ASK_SECONDS = 0.25, 2.0
STOP_SECONDS = 15.0
"""For the requests in hand; longer than Kafka may take to acknowledge."""


class Feedback:
    """The service of one use case, whose labels go to the topic `labels`."""

    def __init__(self, settings: Settings, labels: Topic, metrics: Metrics) -> None:
        self.health = Health(("kafka",), metrics, settings.stall_seconds)
        metrics.ready.set_function(lambda: float(self.readyz().yes))
        self._settings, self._topic = settings, labels
        self._door = Door(self.send, settings.feedback_token, settings.max_ahead_ms, metrics)

    def readyz(self) -> Answer:
        """Answer whether labels would be taken in."""
        stalled = self.health.stalled()
        reasons = [stalled] if stalled else []
        reasons += ["kafka is away"] if self.health.away("kafka") else []
        return Answer(not reasons, {"ready": not reasons, "reasons": reasons})

    async def run(self) -> None:
        """Serve until SIGINT or SIGTERM. Raises KafkaError, and OSError where the address is not to be had."""
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        self._producer = AIOKafkaProducer(
            **connection(self._settings.kafka),
            acks="all",
            linger_ms=LINGER_MS,
            request_timeout_ms=int(ACK_SECONDS * 1000),
        )
        await self._producer.start()
        runner = web.AppRunner(self._door.app(), access_log=None, shutdown_timeout=STOP_SECONDS)
        tasks = [asyncio.create_task(self._beat()), asyncio.create_task(self._ask())]
        try:
            await runner.setup()
            site = web.TCPSite(runner, self._settings.feedback_host, self._settings.feedback_port)
            await site.start()
            host, port, *_ = runner.addresses[0]
            log.info("listening at http://%s:%d/labels", f"[{host}]" if ":" in host else host, port)
            log.info("ready")
            await stop.wait()
        finally:
            await runner.cleanup()
            for task in tasks:
                task.cancel()
            await self._producer.stop()

    async def send(self, labels: Sequence[Label]) -> None:
        """Send labels, each where all of its event's are; returns once they are acknowledged."""
        name = self._topic.name
        acks = [await self._producer.send(name, encode(label), label.event_id.encode()) for label in labels]
        await asyncio.gather(*acks)

    async def _beat(self) -> None:
        while True:
            self.health.beat()
            await asyncio.sleep(BEAT_SECONDS)

    async def _ask(self) -> None:
        """Know whether Kafka answers, until cancelled."""
        while True:
            try:
                await asyncio.wait_for(self._producer.client.fetch_all_metadata(), ASK_SECONDS)
                self.health.answered("kafka", promptly=True)
            except (KafkaError, TimeoutError) as error:
                self.health.answered("kafka", promptly=False)
                self.health.tell("kafka", error)
            await asyncio.sleep(ASK_SECONDS)
