"""The HTTP side: POST /labels hands sound labels to Kafka and answers once they are acknowledged.

The order of effects: 1. every item is checked; 2. the sound ones are sent, and acknowledged by all replicas; 3. the
answer says so. A request without an answer is sent again: the join knows a label that comes twice.
"""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus

from aiohttp import web
from aiokafka.errors import KafkaError

from schemas.codec import Poison
from schemas.events import Label
from services.feedback.labels import JSON, LINES, read
from streams.metrics import Metrics

MOST_BYTES = 4 << 20
ACK_SECONDS = 10.0

Send = Callable[[Sequence[Label]], Awaitable[None]]
"""Returns once labels are acknowledged; raises KafkaError where they are not."""


class Door:
    """The routes of the service; with a `token` only those who bring it are let in."""

    def __init__(self, send: Send, token: bytes, max_ahead_ms: int, metrics: Metrics) -> None:
        self._send, self._token, self._max_ahead_ms, self._metrics = send, token, max_ahead_ms, metrics

    def app(self) -> web.Application:
        """Return the application, to be served."""
        app = web.Application(client_max_size=MOST_BYTES, middlewares=[self._counted])
        app.router.add_post("/labels", self._labels)
        return app

    @web.middleware
    async def _counted(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            answer = await handler(request)
        except web.HTTPException as refusal:  # no such path or method, too large
            answer = _refusal(HTTPStatus(refusal.status), refusal.reason)
            answer.headers.update({name: refusal.headers[name] for name in ("Allow",) if name in refusal.headers})
        self._metrics.requests.labels(str(answer.status)).inc()
        return answer

    async def _labels(self, request: web.Request) -> web.Response:
        if not self._known(request):
            answer = _refusal(HTTPStatus.UNAUTHORIZED, "the header `Authorization: Bearer TOKEN` is wrong or missing")
            answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
        if request.content_type not in (JSON, LINES):
            return _refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the Content-Type must be {JSON} or {LINES}")
        latest = int(time.time() * 1000) + self._max_ahead_ms
        try:
            body = await request.read()
        except (web.RequestPayloadError, ConnectionError):  # not in its Content-Encoding, or cut off
            request.content.feed_eof()  # else aiohttp would read on, to clear the connection
            answer = _refusal(HTTPStatus.BAD_REQUEST, "the body cannot be read")
            answer.force_close()
            return answer
        try:
            items = read(body, request.content_type == LINES, latest)
        except Poison as poison:
            self._count(poison.reason)
            return _refusal(HTTPStatus.BAD_REQUEST, str(poison))
        sound = [item.content for item in items if isinstance(item.content, Label)]
        refused = [(item.number, item.content) for item in items if isinstance(item.content, Poison)]
        try:
            await asyncio.wait_for(self._send(sound), ACK_SECONDS)
        except (KafkaError, TimeoutError) as error:
            what = f"Kafka does not acknowledge ({type(error).__name__}); send it again, what comes twice counts once"
            return _refusal(HTTPStatus.SERVICE_UNAVAILABLE, what)
        self._count("accepted", len(sound))
        for _, why in refused:
            self._count(why.reason)
        content = {
            "accepted": len(sound),
            "refused": [{"item": at, "reason": why.reason, "message": str(why)} for at, why in refused],
        }
        return web.json_response(content, status=HTTPStatus.ACCEPTED if sound else HTTPStatus.UNPROCESSABLE_ENTITY)

    def _known(self, request: web.Request) -> bool:
        said = request.headers.get("Authorization", "").encode(errors="replace")
        return not self._token or hmac.compare_digest(said, b"Bearer " + self._token)

    def _count(self, outcome: str, labels: int = 1) -> None:
        self._metrics.feedback.labels(outcome).inc(labels)


def _refusal(status: HTTPStatus, why: str) -> web.Response:
    return web.json_response({"error": why}, status=status)
