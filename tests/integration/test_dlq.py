"""Records that could not be processed, and those of two versions of an event, through a real worker."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer
from redis import Redis

from infra.processes import Processes
from services.dlq.__main__ import main
from streams.usecases import FRAUD
from tests.local import created, records, within

PARTITIONS = 2
TOPICS = FRAUD.topics(PARTITIONS)
EVENTS, DLQ = TOPICS.events.name, TOPICS.dlq.name
AHEAD_MS = 2000
PATIENCE = 30.0  # seconds
OLD = {"event_id": "old", "customer_id": "c", "terminal_id": "t", "amount": 1.0}
NEW = {**OLD, "event_id": "new", "currency": "EUR", "merchant": {"name": "é", "since": [2031, None]}, "risk": 0.5}


@pytest.fixture(scope="module")
def world(kafka_server: str, valkey_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """New topics, an empty Redis and a worker; the tools of this process use the same Kafka."""
    url = valkey_server.removesuffix("/0") + "/8"
    Redis.from_url(url).flushdb()
    settings = {
        "HEADRACE_KAFKA": kafka_server,
        "HEADRACE_REDIS": url,
        "HEADRACE_MODEL_KEY": "k" * 32,
        "HEADRACE_PARTITIONS": str(PARTITIONS),
        "HEADRACE_MAX_AHEAD_MS": str(AHEAD_MS),
    }
    logs = tmp_path_factory.mktemp("dlq")
    with (
        pytest.MonkeyPatch.context() as patch,
        created(kafka_server, TOPICS),
        Processes(logs, settings) as processes,
    ):
        for name, value in settings.items():
            patch.setenv(name, value)
        processes.start("worker", "services.worker", "fraud")
        processes.wait_ready(PATIENCE)
        yield kafka_server
        processes.check()


def send(kafka: str, *messages: tuple[str, bytes | None, Any, list[tuple[str, bytes]]]) -> None:
    """Send (topic, key, value, headers) in order; a value that is no bytes is sent as JSON."""
    producer = KafkaProducer(bootstrap_servers=kafka)
    for topic, key, value, headers in messages:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        producer.send(topic, data, key, headers=headers)
    producer.close()


def scores(kafka: str) -> dict[str, list[Any]]:
    """Every score there is, by event id."""
    found: dict[str, list[Any]] = {}
    for record in records(kafka, TOPICS.scores.name):
        found.setdefault(record.key.decode(), []).append(json.loads(record.value))
    return found


class Tool:
    """The tool's commands, run in this process."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, *arguments: str) -> str:
        self._capfd.readouterr()
        assert main(["fraud", *arguments]) == 0
        return self._capfd.readouterr().out

    def letters(self, *arguments: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self("list", "--json", *arguments).splitlines()]

    def buried(self, count: int) -> list[dict[str, Any]]:
        """Wait for so many letters in all, and return those that were not sent back."""
        assert within(PATIENCE, lambda: len(self.letters("--all")) == count), self("list", "--all")
        return self.letters()


def test_a_record_that_died_goes_back_once_it_can_be_processed(
    world: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Sent back as it came it is scored, once; what dies again counts on until it is parked; rubbish stops nothing."""
    tool, now = Tool(capfd), int(time.time() * 1000)
    soon = {**OLD, "event_id": "soon", "event_time": now + AHEAD_MS + 3000}
    rubbish = b"\xff{"
    send(
        world,
        (DLQ, None, b"\x1b[2J", [("n", b"\xff")]),  # someone else's, which no tool may obey
        (EVENTS, b"c", soon, [("trace", b"\x01")]),
        (EVENTS, b"k", rubbish, [("trace", b"\x02")]),
        (EVENTS, b"c", {**OLD, "event_time": now}, []),
    )
    letters = tool.buried(3)
    assert [(one["reason"], one["state"], one["attempt"]) for one in letters] == [
        ("unknown", "unfit", 0),
        ("future", "waiting", 1),
        ("undecodable", "waiting", 1),
    ]
    assert letters[1]["source"]["topic"] == EVENTS
    assert tool.letters("--reason", "future", "--topic", EVENTS, "--since", "1h") == letters[1:2]
    assert tool.letters("--since", "1969-01-01", "--limit", "2") == letters[:2]
    assert tool.letters("--since", "2099-01-01") == tool.letters("--limit", "0") == []
    shown = json.loads(tool("show", str(letters[2]["offset"]), "--json"))
    assert (shown["key"], shown["value"]) == ({"text": "k"}, {"hex": rubbish.hex()})
    assert "\x1b" not in tool("list") + tool("show", "0")
    assert main(["fraud", "show", "99"]) == 1
    assert capfd.readouterr().err == "error: fraud.dlq has no letter at offset 99\n"

    while int(time.time() * 1000) + AHEAD_MS < soon["event_time"]:
        time.sleep(0.05)  # until its time has come
    assert json.loads(tool("replay", "--reason", "future", "--json"))["replayed"] == 1
    assert within(PATIENCE, lambda: {"old", "soon"} <= scores(world).keys())
    assert tool("replay", "--reason", "future") == "0 replayed\n1 left alone: replayed before\n"
    assert tool("list").splitlines()[-1] == "2 letters; 1 replayed ones are left out (--all shows them)"
    (back,) = [one for one in records(world, EVENTS) if ("headrace-attempt", b"1") in one.headers]
    assert (back.key, json.loads(back.value)) == (b"c", soon)
    assert back.headers == [("trace", b"\x01"), ("headrace-attempt", b"1")]

    for attempt in range(2, 6):
        assert tool("replay").splitlines()[0] == "1 replayed"
        (letter,) = [one for one in tool.buried(2 + attempt) if one["reason"] == "undecodable"]
        assert letter["attempt"] == attempt
    assert letter["state"] == "parked"
    assert tool("replay").splitlines() == [
        "0 replayed",
        "5 left alone: replayed before",
        "1 left alone: parked after 5 attempts (--force sends them)",
        "1 left alone: they cannot be sent back as they came (list says why)",
    ]
    assert tool("replay", "--force").startswith("1 replayed\n")
    assert [one["attempt"] for one in tool.buried(8)][1:] == [6]
    (last,) = [one for one in records(world, DLQ) if ("headrace-attempt", b"6") in one.headers]
    assert (last.key, last.value, last.headers[0]) == (b"k", rubbish, ("trace", b"\x02"))
    assert len(scores(world)["soon"]) == 1


def test_old_and_new_events_share_a_topic(world: str) -> None:
    """Without the fields that came later, and with fields that nobody here knows: all are scored, in one state."""
    now = int(time.time() * 1000)
    ids = {"customer_id": "versions", "terminal_id": "versions"}
    events = [{**one, **ids, "event_id": f"{i}", "event_time": now + i} for i, one in enumerate([OLD, NEW] * 50)]
    send(world, *((EVENTS, b"versions", event, []) for event in events))
    assert within(PATIENCE, lambda: {event["event_id"] for event in events} <= scores(world).keys())
    found = scores(world)
    counts = [found[event["event_id"]][0]["features"]["customer_tx_count_1d"] for event in events]
    assert counts == list(range(1, 101))
    assert not [one for one in records(world, DLQ) if one.key == b"versions"]
