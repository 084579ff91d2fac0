"""How commands end that did not come to their end: by Ctrl-C, and because nobody reads on."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from services.backfill.__main__ import main as backfill
from services.dlq.__main__ import main as dlq
from services.feedback.__main__ import main as feedback
from services.init.__main__ import main as init
from services.lists.__main__ import main as lists
from services.models.__main__ import main as models
from services.replay.__main__ import main as replay
from services.rights.__main__ import main as rights
from services.simulator.__main__ import main as simulator
from services.switchover.__main__ import main as switchover
from streams.app import StageWorker
from streams.process import serve
from tests.scenarios import __main__ as scenarios

Main = Callable[[list[str]], int]

PROMPT_SECONDS = 2.0
FILE = "event_id,event_time,customer_id,terminal_id,amount,label\ne1,1700000000000,c1,t1,5.0,0\n"


@pytest.fixture
def silent_kafka(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A server that takes connections and never says a word, and the settings of somebody who asks it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HEADRACE_KAFKA", f"127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("HEADRACE_MODEL_KEY", "k" * 32)
        monkeypatch.setenv("HEADRACE_METRICS_PORT", "0")
        yield server


@contextmanager
def ctrl_c_once_asked(server: socket.socket) -> Iterator[None]:
    """Send this process what Ctrl-C does, as soon as somebody in the block has connected; the end must be prompt."""
    sent: list[float] = []

    def interrupt() -> None:
        with server.accept()[0]:
            time.sleep(0.2)  # it waits for the answer by now
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)
            over.wait(60)

    over, thread = threading.Event(), threading.Thread(target=interrupt, daemon=True)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    thread.start()
    try:
        yield
    except KeyboardInterrupt:
        pytest.fail("it ends with a traceback")
    finally:
        ended = time.monotonic()
        over.set()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert sent, "nobody has asked the server"
    assert ended - sent[0] < PROMPT_SECONDS


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (init, []),
        (feedback, []),
        (rights, []),
        (simulator, ["--rate", "1"]),
        (models, ["list"]),
        (lists, ["show"]),
        (lists, ["add", "block", "customer", "c1"]),
        (dlq, ["list"]),
        (dlq, ["replay"]),
        (switchover, ["--from", "old"]),
        (replay, ["--input", "events.csv"]),
        (backfill, ["--input", "events.csv"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value.__module__.split(".")[1],
)
def test_ctrl_c_ends_a_command_at_once(
    main: Main,
    arguments: list[str],
    silent_kafka: socket.socket,
    tmp_path: os.PathLike[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever it waits for: exit code 130, within two seconds, without a traceback."""
    monkeypatch.chdir(tmp_path)
    with open("events.csv", "w", encoding="utf-8") as file:
        file.write(FILE)
    with ctrl_c_once_asked(silent_kafka):
        assert main(["fraud", *arguments]) == 130


def test_ctrl_c_ends_a_service_that_starts_at_once(
    silent_kafka: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers, learner, history and matured have one door."""
    monkeypatch.setattr(sys, "argv", ["worker", "fraud"])
    with ctrl_c_once_asked(silent_kafka):
        assert serve("worker", "", StageWorker) == 130


def test_ctrl_c_ends_a_scenario(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take minutes: exit code 130."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["scenarios", "drift"])
    monkeypatch.setitem(scenarios.SCENARIOS, "drift", interrupted)
    try:
        assert scenarios.main() == 130
    except KeyboardInterrupt:
        pytest.fail("it ends with a traceback")
