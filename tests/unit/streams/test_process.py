"""The door of a long-running process: what is wrong is told before any server is asked."""

import socket
import sys
from collections.abc import Callable

import pytest

from services.feedback import __main__ as feedback
from services.learner.worker import LearnerWorker
from services.simulator import __main__ as simulator
from streams.app import StageWorker
from streams.process import Build, serve

NOBODY = {"HEADRACE_KAFKA": "127.0.0.1:1", "HEADRACE_REDIS": "redis://127.0.0.1:1"}


@pytest.mark.parametrize(("name", "build"), [("worker", StageWorker), ("learner", LearnerWorker)])
@pytest.mark.parametrize("key", [None, "too short"])
def test_who_reads_models_or_makes_them_has_a_key(
    name: str, build: Build, key: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no default key: a model that anybody could have signed is code that anybody could have written."""
    monkeypatch.setattr(sys, "argv", [name, "fraud"])
    for variable, value in NOBODY.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv("HEADRACE_MODEL_KEY", raising=False)
    if key:
        monkeypatch.setenv("HEADRACE_MODEL_KEY", key)
    assert serve(name, "", build) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{name}: HEADRACE_MODEL_KEY: ")


def test_a_password_in_clear_is_refused_at_the_door(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What would send it unencrypted does not start, and does not show it either."""
    monkeypatch.setattr(sys, "argv", ["worker", "fraud"])
    monkeypatch.setenv("HEADRACE_KAFKA_USER", "worker")
    monkeypatch.setenv("HEADRACE_KAFKA_PASSWORD", "Sesam7")
    assert serve("worker", "", StageWorker) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("worker: HEADRACE_KAFKA_SECURITY: ")
    assert "Sesam7" not in line


@pytest.mark.parametrize("name", ["worker", "feedback", "simulator"])
def test_a_metrics_port_in_use_is_told_in_a_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the settings that say where: exit code 2, whatever process it is."""
    starts: dict[str, Callable[[], int]] = {
        "worker": lambda: serve("worker", "", StageWorker),
        "feedback": lambda: feedback.main(["fraud"]),
        "simulator": lambda: simulator.main(["fraud", "--rate", "1"]),
    }
    monkeypatch.setattr(simulator, "create_topics", lambda *_: None)
    monkeypatch.setattr(sys, "argv", [name, "fraud"])
    monkeypatch.setenv("HEADRACE_MODEL_KEY", "k" * 32)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("HEADRACE_METRICS_PORT", str(port))
        assert starts[name]() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"HEADRACE_METRICS_HOST 127.0.0.1, HEADRACE_METRICS_PORT {port}: Address already in use" in line
