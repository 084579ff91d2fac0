"""The dashboards: whole, on metrics that there are, with queries that Prometheus understands."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.grafana.__main__ import DASHBOARDS, main
from streams.metrics import Metrics

INFRA = Path(__file__).parents[3] / "infra"
PROMTOOL = shutil.which("promtool")


@pytest.fixture
def boards(tmp_path: Path) -> list[dict[str, Any]]:
    assert main([str(tmp_path / "new" / "boards")]) == 0
    return [json.loads(path.read_text()) for path in sorted((tmp_path / "new" / "boards").iterdir())]


def panels(boards: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [panel for board in boards for panel in board["panels"] if panel["type"] != "row"]


def queries(boards: list[dict[str, Any]]) -> list[str]:
    return [target["expr"] for panel in panels(boards) for target in panel["targets"]]


def test_every_panel_says_what_it_shows(boards: list[dict[str, Any]]) -> None:
    """Each has its own number, a title, a text, a unit, a query, and its place within Grafana's 24 columns."""
    assert [board["uid"] for board in boards] == [f"headrace-{name}" for name in sorted(DASHBOARDS)]
    for board in boards:
        ids = [panel["id"] for panel in board["panels"]]
        assert len(set(ids)) == len(ids)
        for panel in panels([board]):
            assert panel["title"]
            assert panel["description"].endswith(".")
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert panel["targets"]
            assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


def test_the_dashboards_find_their_source(boards: list[dict[str, Any]]) -> None:
    """Panels, queries and the choice of the use case go to the source that is provisioned, by its uid."""
    (source,) = yaml.safe_load((INFRA / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    wanted = {"type": source["type"], "uid": source["uid"]}
    for panel in panels(boards):
        assert panel["datasource"] == wanted
        assert all(target["datasource"] == wanted for target in panel["targets"])
    assert all(board["templating"]["list"][0]["datasource"] == wanted for board in boards)


def test_queries_are_about_metrics_that_there_are(boards: list[dict[str, Any]]) -> None:
    """A metric that is renamed takes its panels with it."""
    families = list(Metrics("any").registry.collect())
    there = {one.name + end for one in families for end in ("", "_total", "_bucket", "_count")}
    rules = yaml.safe_load((INFRA / "prometheus/rules/recording.yml").read_text())["groups"]
    recorded = {rule["record"] for group in rules for rule in group["rules"]}
    used = {name for query in queries(boards) for name in re.findall(r"(?:[a-z_]+:)?headrace_[a-z0-9_:]+", query)}
    assert used
    assert used <= there | recorded


def test_every_query_is_of_one_use_case(boards: list[dict[str, Any]]) -> None:
    """What is chosen at the top of the dashboard counts for every series of every query."""
    for query in queries(boards):
        series = re.findall(r"(?:headrace_[a-z0-9_:]+|\bup|ALERTS)\b(\{[^}]*\})?", query)
        assert series
        assert all('usecase="$usecase"' in selector for selector in series), query


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool here (Debian: apt-get install prometheus)")
def test_every_query_parses(boards: list[dict[str, Any]], tmp_path: Path) -> None:
    """Prometheus understands every query as Grafana sends it."""
    sent = [query.replace("$usecase", "fraud").replace("$__rate_interval", "20s") for query in queries(boards)]
    rules = [{"record": f"panel_{number}", "expr": expr} for number, expr in enumerate(sent)]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run([PROMTOOL or "", "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line with the folder and the reason, exit code 1."""
    (tmp_path / "file").write_text("")
    assert main([str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err == f"grafana: {tmp_path / 'file'}: File exists\n"
