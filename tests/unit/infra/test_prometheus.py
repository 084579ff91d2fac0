"""The rules: every alert fires when it should and not otherwise, on metrics that there are."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from streams.metrics import Metrics

FOLDER = Path(__file__).parents[3] / "infra" / "prometheus"
PROMTOOL = shutil.which("promtool")
AMTOOL = shutil.which("amtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool here (Debian: apt-get install prometheus)")


def rules() -> list[dict[str, Any]]:
    groups = [group for path in FOLDER.glob("rules/*.yml") for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(
        [PROMTOOL or "", *map(str, arguments)], cwd=FOLDER, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_the_configuration_is_sound() -> None:
    """Prometheus would start with it, and load every rule."""
    promtool("check", "config", "prometheus.yml")


@needs_promtool
@pytest.mark.parametrize("path", sorted(FOLDER.glob("tests/*.yml")), ids=lambda path: path.stem)
def test_the_rules_do_what_their_tests_say(path: Path) -> None:
    """Each alert fires in time, with its labels and its words, and stays silent where it should."""
    promtool("test", "rules", path)


@pytest.mark.skipif(AMTOOL is None, reason="no amtool here (Debian: apt-get install prometheus-alertmanager)")
@pytest.mark.parametrize("severity", ["page", "ticket"])
def test_somebody_is_told(severity: str) -> None:
    """Alertmanager would start with its configuration, and hands each severity to the receiver of that name."""
    arguments = ["config", "routes", "test", "--config.file=alertmanager.yml", f"severity={severity}", "usecase=fraud"]
    done = subprocess.run([AMTOOL or "", *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, severity), done.stderr


def test_a_silenced_alert_is_one_that_there_is() -> None:
    """What a cause keeps silent is spelt as the rules spell it."""
    matchers = [
        matcher
        for rule in yaml.safe_load((FOLDER / "alertmanager.yml").read_text())["inhibit_rules"]
        for matcher in rule["source_matchers"] + rule["target_matchers"]
    ]
    names = {name for matcher in matchers for name in re.findall(r"[A-Z]\w+", matcher)}
    assert names
    assert names <= {rule.get("alert") for rule in rules()}


def test_every_alert_is_tested_both_ways() -> None:
    """Of every alert there is a case that fires it and one that does not."""
    tests = [test for path in FOLDER.glob("tests/*.yml") for test in yaml.safe_load(path.read_text())["tests"]]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    alerts = {rule["alert"] for rule in rules() if "alert" in rule}
    assert len(alerts) > 20
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == alerts
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == alerts


def test_rules_are_about_metrics_that_there_are() -> None:
    """A metric that is renamed takes its rules with it; what is recorded is used by its name."""
    there = {
        name + suffix
        for family in Metrics("any").registry.collect()
        for name in [family.name]
        for suffix in ("", "_total", "_bucket", "_count", "_sum")
    }
    there |= {rule["record"] for rule in rules() if "record" in rule}
    used = {name for rule in rules() for name in re.findall(r"(?:[a-z_]+:)?headrace_[a-z0-9_:]+", rule["expr"])}
    assert used
    assert used <= there


def test_an_alert_says_what_is_wrong_and_how_urgent_it_is() -> None:
    """Its summary begins with the use case; it is worth waking somebody, or a ticket; the handbook knows it."""
    handbook = (FOLDER / "README.md").read_text()
    for rule in rules():
        if "alert" in rule:
            assert rule["annotations"]["summary"].startswith("{{ $labels.usecase }}: ")
            assert rule["labels"]["severity"] in ("page", "ticket")
            assert f"| {rule['alert']} |" in handbook
