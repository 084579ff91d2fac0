"""The door of a long-running process: what is wrong is told before any server is asked."""

import sys

import pytest

from services.learner.worker import LearnerWorker
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
