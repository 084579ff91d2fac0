"""The end of a test run says what ran on which engine, and a run that cannot have its engine does not begin."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines.summary import told

ROOT = Path(__file__).parents[3]


def report(engine: str, when: str = "call", outcome: str = "passed", why: str = "") -> pytest.TestReport:
    longrepr = ("test_x.py", 1, f"Skipped: {why}") if why else None
    properties = [("engine", engine)]
    return pytest.TestReport("x", ("x", 1, "x"), {}, outcome, longrepr, when, user_properties=properties)  # type: ignore[arg-type]


def test_each_engine_has_a_line() -> None:
    """Tests that ran are counted once, failed ones too; those without servers are nobody's; skips say why."""
    reports = [
        report("local"), report("local", outcome="failed"), report("local", "setup", "failed"),
        report("local", "setup"), report("local", "teardown"), report(""), report("", "setup", "skipped", "no row"),
        report("local", "setup", "skipped", "no prometheus"), report("containers", "setup", "skipped", "no Docker"),
        report("containers", "setup", "skipped", "no Docker"),
    ]  # fmt: skip
    assert list(told(reports[-4:], "containers")) == [
        "local: no integration tests ran; `make test` runs the suite on it",
        "containers: no integration tests ran; 2 did not: no Docker; 1 did not: no prometheus",
    ]
    assert list(told(reports, "local")) == [
        "local: 3 integration tests ran; 1 did not: no prometheus",
        "containers: no integration tests ran; 2 did not: no Docker; `make test-containers` runs the suite on it",
    ]


def test_containers_that_cannot_be_had_are_an_error(tmp_path: Path) -> None:
    """Whoever asks for containers is told in one line why there are none, and nothing runs."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--engine", "containers", "tests/contract"],
        cwd=ROOT,
        env=os.environ | {"DOCKER_HOST": f"unix://{tmp_path}/no.sock"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert done.stderr.strip() == "ERROR: --engine containers: no Docker engine answers"
