"""How commands end that did not come to their end: by Ctrl-C, and because nobody reads on."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.local import __main__ as local
from infra.local.stack import OnReady
from services.backfill.__main__ import main as backfill
from services.backtest.__main__ import main as backtest
from services.demo import __main__ as demo
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

PROMPT_SECONDS = 5.0
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
def keeping_handlers() -> Iterator[None]:
    """What the block sets for signals is undone."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def ctrl_c_once_asked(server: socket.socket) -> Iterator[None]:
    """Send this process what Ctrl-C does, as soon as somebody in the block has connected; the end must be prompt."""
    sent: list[float] = []

    def interrupt() -> None:
        with server.accept()[0]:
            if over.wait(0.2):  # it has ended by itself
                return
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)
            over.wait(60)

    over, thread = threading.Event(), threading.Thread(target=interrupt, daemon=True)
    thread.start()
    try:
        with keeping_handlers():
            yield
    except KeyboardInterrupt:
        pytest.fail("it ends with a traceback")
    finally:
        ended = time.monotonic()
        over.set()
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
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever it waits for: exit code 130, within two seconds, without a traceback."""
    monkeypatch.chdir(tmp_path)
    Path("events.csv").write_text(FILE, encoding="utf-8")
    with ctrl_c_once_asked(silent_kafka):
        assert main(["fraud", *arguments]) == 130


def test_ctrl_c_ends_a_service_that_starts_at_once(
    silent_kafka: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers, learner, history and matured have one door."""
    monkeypatch.setattr(sys, "argv", ["worker", "fraud"])
    with ctrl_c_once_asked(silent_kafka):
        assert serve("worker", "", StageWorker) == 130


@contextmanager
def pipe(monkeypatch: pytest.MonkeyPatch, closed: bool = True) -> Iterator[int]:
    """What is printed inside the block goes into a pipe, whose other end (given) is `closed`.

    As the interpreter would at its end, what is left is flushed: that must be no fault either.
    """
    reading, writing = os.pipe()
    if closed:
        os.close(reading)
    with monkeypatch.context() as patch, os.fdopen(writing, "w") as output:
        patch.setattr(sys, "stdout", output)
        yield reading


def test_who_has_read_enough_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """`| head -1`: exit code 0."""
    with pipe(monkeypatch):
        assert rights(["fraud", "--show"]) == 0


def test_a_backtest_whose_last_line_nobody_reads_is_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The file is in place."""
    rows = [f"e{at},{1_700_000_000_000 + 60_000 * at},c{at % 3},t1,5.0,{at % 2}" for at in range(20)]
    (tmp_path / "events.csv").write_text("\n".join([FILE.split("\n", maxsplit=1)[0], *rows]), encoding="utf-8")
    output = tmp_path / "scores.parquet"
    with pipe(monkeypatch):
        assert backtest(["fraud", "--input", str(tmp_path / "events.csv"), "--output", str(output)]) == 0
    assert output.exists()


def test_a_demo_that_nobody_watches_stops_what_it_has_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its servers have ended before their data goes."""
    done: list[str] = []

    class Servers:
        """One server, whose readiness nobody reads of, and what is done to it."""

        name = address = "server"

        def __init__(self, *_: object, **__: object) -> None:
            self.servers = [self]

        def environment(self) -> dict[str, str]:
            return {}

        def start(self, on_ready: Callable[..., None]) -> None:
            os.close(reading)
            on_ready(self, 1.0, False)

        def kill(self) -> None:
            done.append("killed")

        def stop(self) -> None:
            done.append("stopped")

    monkeypatch.setattr(demo, "FOLDER", tmp_path)
    monkeypatch.setattr(demo, "LocalServers", Servers)
    monkeypatch.setattr(demo, "_keep_logs_only", lambda _: done.append("removed"))
    with keeping_handlers(), pipe(monkeypatch, closed=False) as reading:
        assert demo.main(["fraud"]) == 0
    assert done == ["killed", "stopped", "removed"]


def test_local_servers_start_whoever_reads_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They outlive the command, so it ends as if it had been read: all of them run."""
    started: list[str] = []

    def start(self: local.LocalServers, on_ready: OnReady) -> None:
        for server in self.servers:
            on_ready(server, 1.0, False)
            started.append(server.name)

    monkeypatch.setattr(local.LocalServers, "start", start)
    with pipe(monkeypatch):
        assert local.main(["up", "--data", str(tmp_path), "--only", "kafka,valkey"]) == 0
    assert started == ["kafka", "valkey"]


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
