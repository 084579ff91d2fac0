"""The feedback door: what is sound is sent before the answer, what is not is named and counted, and that is all."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiokafka.errors import KafkaTimeoutError

from schemas.codec import Poison
from schemas.events import Label
from services.feedback import __main__ as entry
from services.feedback import door
from services.feedback.door import Door
from services.feedback.labels import LINES, MOST, read
from streams.metrics import Metrics

NOW = int(time.time() * 1000)
AHEAD = 60_000
TOKEN = b"a secret of more than thirty-two characters"
GOOD = {"event_id": "e1", "label_time": NOW, "label": 1}


class World:
    """The door in front of a list; `failing` is what the next send meets."""

    def __init__(self, token: bytes = b"") -> None:
        self.sent: list[Label] = []
        self.failing: BaseException | None = None
        self.metrics = Metrics("test")
        self.door = Door(self.send, token, AHEAD, self.metrics)
        self.client: TestClient[Any, Any]

    async def send(self, labels: Sequence[Label]) -> None:
        if self.failing:
            raise self.failing
        self.sent += labels

    async def post(self, body: object, kind: str = "application/json", **headers: str) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.client.post("/labels", data=data, headers={"Content-Type": kind, **headers}) as answer:
            return answer.status, await answer.json()

    def answered(self, status: int) -> float | None:
        return self.metrics.registry.get_sample_value("headrace_requests_total", {"status": str(status)})

    def counted(self, outcome: str) -> float | None:
        return self.metrics.registry.get_sample_value("headrace_feedback_labels_total", {"outcome": outcome})


def run(scenario: Callable[[World], Awaitable[None]], token: bytes = b"") -> None:
    async def served() -> None:
        world = World(token)
        async with TestClient(TestServer(world.door.app())) as client:
            world.client = client
            await asyncio.wait_for(scenario(world), 20)

    asyncio.run(served())


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (GOOD, "application/json"),
        ([GOOD], "application/json; charset=utf-8"),
        (b" \n[" + json.dumps(GOOD).encode() + b"] ", "application/json"),
        (json.dumps(GOOD).encode() + b"\n\n", LINES),
    ],
    ids=["object", "array", "array in space", "line"],
)
def test_a_label_is_sent_and_accepted(body: object, kind: str) -> None:
    """One label, however it is wrapped, is in Kafka when the answer comes."""

    async def scenario(world: World) -> None:
        assert await world.post(body, kind) == (202, {"accepted": 1, "refused": []})
        assert world.sent == [Label("e1", NOW, 1)]
        assert world.counted("accepted") == 1

    run(scenario)


def test_of_a_batch_the_sound_ones_are_taken_and_the_others_named() -> None:
    """Each refusal has its place and its reason; the reasons are counted, and nothing of them is sent."""
    bad: list[tuple[object, str]] = [
        (GOOD | {"label": 2}, "invalid"),
        (GOOD | {"label": "fraud"}, "invalid"),
        (GOOD | {"label": True}, "invalid"),
        (GOOD | {"label_time": NOW + 1000 * AHEAD}, "future"),
        (GOOD | {"event_id": ""}, "invalid"),
        (GOOD | {"assumed": True}, "invalid"),
        (GOOD | {"event_id": "e" * 70_000}, "too_large"),
        ({}, "invalid"),
        (None, "invalid"),
        ("e1", "invalid"),
    ]
    items = [GOOD, *(item for item, _ in bad), GOOD | {"event_id": "e2", "label": 0}]

    async def scenario(world: World) -> None:
        for body, kind in (items, "application/json"), (b"\n".join(map(encoded, items)), LINES):
            status, answer = await world.post(body, kind)
            assert (status, answer["accepted"]) == (202, 2)
            assert [(one["item"], one["reason"]) for one in answer["refused"]] == [
                (number, reason) for number, (_, reason) in enumerate(bad, 1)
            ]
            assert all(one["message"] for one in answer["refused"])
        assert world.sent == 2 * [Label("e1", NOW, 1), Label("e2", NOW, 0)]
        assert (world.counted("accepted"), world.counted("future"), world.counted("invalid")) == (4, 2, 16)

    run(scenario)


def encoded(item: object) -> bytes:
    return json.dumps(item).encode()


def test_a_line_that_is_no_json_spoils_no_other() -> None:
    """A broken line is named by its number, blank ones count as lines."""

    async def scenario(world: World) -> None:
        status, answer = await world.post(b"\n{oops\n" + encoded(GOOD) + b"\n\xff\n", LINES)
        assert (status, answer["accepted"]) == (202, 1)
        assert [(one["item"], one["reason"]) for one in answer["refused"]] == [(1, "undecodable"), (3, "undecodable")]

    run(scenario)


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (GOOD | {"label": 7}, "application/json", 422),
        (b"", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"[{]", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"\n" * 10, LINES, 400),
        (b"{}\n" * (MOST + 1), LINES, 400),
        (GOOD, "text/plain", 415),
        (b" " * (door.MOST_BYTES + 1), "application/json", 413),
    ],
    ids=["label", "empty", "no items", "no JSON", "deep", "blank lines", "too many", "kind", "too large"],
)
def test_what_has_no_sound_label_is_refused_whole(body: object, kind: str, status: int) -> None:
    """Nothing is sent, and the answer says why."""

    async def scenario(world: World) -> None:
        found, answer = await world.post(body, kind)
        assert found == status
        assert answer["refused"] if status == 422 else answer["error"]
        assert world.sent == []

    run(scenario)


def test_only_who_has_the_token_may_label() -> None:
    """With a token set, a request without it or with another is refused unread."""

    async def scenario(world: World) -> None:
        for said in {}, {"Authorization": "Bearer nope"}, {"Authorization": TOKEN.decode()}:
            assert (await world.post(GOOD, **said))[0] == 401
        assert world.sent == []
        assert (await world.post(GOOD, Authorization="Bearer " + TOKEN.decode()))[0] == 202
        assert world.sent == [Label("e1", NOW, 1)]

    run(scenario, TOKEN)


@pytest.mark.parametrize("error", [KafkaTimeoutError(), TimeoutError()])
def test_an_absent_kafka_is_no_acceptance(error: Exception) -> None:
    """What is not acknowledged is not counted as accepted: the caller is told to send it again."""

    async def scenario(world: World) -> None:
        world.failing = error
        status, answer = await world.post(GOOD)
        assert status == 503
        assert "send it again" in answer["error"]
        assert world.counted("accepted") is None
        world.failing = None
        assert (await world.post(GOOD))[0] == 202

    run(scenario)


@pytest.mark.parametrize("garbage", [True, False], ids=["garbage", "gone"])
def test_a_body_that_cannot_be_read_is_no_fault(garbage: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Whether it is not what it says or its client has gone: counted as 400, and nothing is logged."""
    lines = ["POST /labels HTTP/1.1", "Host: a", "Content-Type: application/json", "Content-Length: 7"]
    lines += ["Expect: 100-continue", *(["Content-Encoding: gzip"] if garbage else []), "", ""]

    async def scenario() -> bytes:
        world = World()
        runner = web.AppRunner(world.door.app(), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        reader, writer = await asyncio.open_connection(*runner.addresses[0])
        writer.write("\r\n".join(lines).encode())
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"garbage" if garbage else b"[{")
        answer = await reader.read() if garbage else b""
        writer.close()
        while world.answered(400) is None:  # noqa: ASYNC110 - a counter is not an event
            await asyncio.sleep(0.01)
        await runner.cleanup()
        assert world.sent == []
        return answer

    answer = asyncio.run(asyncio.wait_for(scenario(), 10))
    if garbage:
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.endswith(b'{"error": "the body cannot be read"}')
    assert [one for one in caplog.records if one.levelno > logging.INFO] == []


def test_other_paths_and_methods_are_answered_in_json() -> None:
    """A wrong address says so, and is counted by its status."""

    async def scenario(world: World) -> None:
        async with world.client.get("/labels") as answer:
            assert (answer.status, await answer.json()) == (405, {"error": "Method Not Allowed"})
        async with world.client.get("/") as answer:
            assert answer.status == 404
        assert world.answered(405) == 1

    run(scenario)


def test_too_many_labels_are_one_reason() -> None:
    """The limit is on labels, not on lines."""
    with pytest.raises(Poison, match="more than"):
        read(b"[" + b",".join([b"{}"] * (MOST + 1)) + b"]", False, NOW)
    assert len(read(b"{}\n\n" * MOST, True, NOW)) == MOST


def test_what_is_wrong_is_one_line(capsys: Any, monkeypatch: Any) -> None:
    """A wrong setting, and a Kafka that is not there, are named in a line."""
    monkeypatch.setenv("HEADRACE_FEEDBACK_TOKEN", "short")
    assert entry.main(["fraud"]) == 2
    assert capsys.readouterr().err.startswith("feedback: HEADRACE_FEEDBACK_TOKEN: ")
    monkeypatch.delenv("HEADRACE_FEEDBACK_TOKEN")
    monkeypatch.setenv("HEADRACE_KAFKA", "127.0.0.1:1")
    monkeypatch.setattr("streams.runtime.topics.REACH_MS", 300)
    assert entry.main(["fraud"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("feedback: Kafka at 127.0.0.1:1 does not answer")
