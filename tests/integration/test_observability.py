"""What is watched is there: a real Prometheus scrapes real services, and every panel of every dashboard has data."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest
import yaml

from infra.grafana.__main__ import main as write_dashboards
from infra.local.ports import free_port
from infra.processes import Processes
from schemas.codec import encode
from streams.runtime.producer import Producer
from streams.usecases import FRAUD
from tests.local import created, within

PROMETHEUS = shutil.which("prometheus")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(PROMETHEUS is None, reason="no prometheus here (Debian: apt-get install prometheus)"),
]

RULES = Path(__file__).parents[2] / "infra" / "prometheus"
SERVICES = ("worker", "learner", "history", "matured", "feedback")
PARTITIONS = 2
TOPICS = FRAUD.topics(PARTITIONS)
PATIENCE = 60.0  # seconds


class Prometheus:
    """A Prometheus as configured for production, but for where its targets are and how often it looks."""

    def __init__(self, folder: Path, targets: dict[str, str]) -> None:
        content = yaml.safe_load((RULES / "prometheus.yml").read_text())
        content["global"] = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
        content["rule_files"] = [str(RULES / "rules" / "*.yml")]
        del content["alerting"]
        (scrape,) = content["scrape_configs"]
        (names,) = scrape.pop("dns_sd_configs")
        assert set(names["names"]) == targets.keys()
        scrape["static_configs"] = [
            {"targets": [address], "labels": {"__meta_dns_name": name}} for name, address in targets.items()
        ]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(content))
        self._folder, self._port = folder, free_port()

    @contextmanager
    def running(self) -> Iterator[None]:
        with (self._folder / "prometheus.log").open("w") as log:
            process = subprocess.Popen(
                [
                    PROMETHEUS or "",
                    f"--config.file={self._folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stderr=log,
            )
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)

    def ask(self, path: str, **parameters: str) -> Any:
        """What /api/v1/PATH answers."""
        with urlopen(f"http://127.0.0.1:{self._port}/api/v1/{path}?{urlencode(parameters)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def answers(self) -> bool:
        try:
            return bool(self.ask("status/buildinfo"))
        except OSError:
            return False

    def series(self, query: str) -> list[dict[str, str]]:
        """The labels of a query's series that have a number."""
        return [one["metric"] for one in self.ask("query", query=query)["result"] if one["value"][1] != "NaN"]


def payments(kafka: str, seconds: float, feedback: str) -> None:
    """A hundred payments a second, so large that they are reviewed, one in five with a label at once, some of them by
    HTTP; and one that is none."""
    until, number = time.monotonic() + seconds, 0
    with Producer(kafka, linger_ms=1) as producer:
        producer.send(TOPICS.events.name, b"{", key=b"c0")
        while time.monotonic() < until:
            now = int(time.time() * 1000)
            for _ in range(10):
                number += 1
                customer, event_id = f"c{number % 50}", f"e{number}"
                ids = {"event_id": event_id, "customer_id": customer, "terminal_id": f"t{number % 20}"}
                producer.send(
                    TOPICS.events.name, encode({**ids, "event_time": now, "amount": 1000.0}), key=customer.encode()
                )
                label = {"event_id": event_id, "label_time": now, "label": number // 5 % 2}
                if number % 50 == 0:
                    request = Request(feedback, json.dumps(label).encode(), {"Content-Type": "application/json"})
                    urlopen(request, timeout=10).close()
                elif number % 5 == 0:
                    producer.send(TOPICS.labels.name, encode(label), key=event_id.encode())
            time.sleep(0.1)  # the pace


def without_data(prometheus: Prometheus, queries: dict[str, str]) -> list[str]:
    """The panels whose query has no series with a number."""
    return [panel for panel, query in queries.items() if not prometheus.series(query)]


def jobs_up(prometheus: Prometheus) -> set[str]:
    """The services whose metrics are being read."""
    return {one["job"] for one in prometheus.series('up{usecase="fraud"} == 1')}


def unsound(prometheus: Prometheus) -> list[str]:
    """The rules that have not been evaluated, or not well; but for those of days, which are evaluated later."""
    groups = [group for group in prometheus.ask("rules")["groups"] if group["interval"] < 1]
    return [rule["name"] for group in groups for rule in group["rules"] if rule["health"] != "ok"]


@pytest.fixture
def queries(tmp_path: Path) -> dict[str, str]:
    """Every query of every panel, as Grafana sends it, by where it stands."""
    folder = tmp_path / "dashboards"
    write_dashboards([str(folder)])
    return {
        f"{path.stem}: {panel['title']} {target['refId']}": target["expr"]
        .replace("$usecase", "fraud")
        .replace("$__rate_interval", "1m")
        for path in folder.iterdir()
        for panel in json.loads(path.read_text())["panels"]
        for target in panel.get("targets", [])
    }


def test_every_panel_has_data(
    kafka_server: str, valkey_server: str, cassandra_server: str, queries: dict[str, str], tmp_path: Path
) -> None:
    """All targets are up, rules are sound, the one alert that is due fires, every panel finds what it asks for.

    Without its services, Prometheus has nothing for most of them: the test sees what it is to see.
    """
    door = f"http://127.0.0.1:{(port := free_port())}/labels"
    environment = {
        "HEADRACE_KAFKA": kafka_server,
        "HEADRACE_REDIS": valkey_server.removesuffix("/0") + "/13",
        "HEADRACE_CASSANDRA": cassandra_server,
        "HEADRACE_KEYSPACE": f"k{uuid4().hex[:12]}",
        "HEADRACE_MODEL_KEY": "k" * 32,
        "HEADRACE_PARTITIONS": str(PARTITIONS),
        "HEADRACE_SESSION_SECONDS": "3",
        "HEADRACE_SNAPSHOT_SECONDS": "0.5",
        "HEADRACE_ENTITY_SNAPSHOT_SECONDS": "1",
        "HEADRACE_LABEL_HORIZON_SECONDS": "1",
        "HEADRACE_FEEDBACK_PORT": str(port),
    }
    with created(kafka_server, TOPICS), Processes(tmp_path / "logs", environment) as processes:
        all_ = {name: processes.start(name, f"services.{name}", "fraud") for name in SERVICES}
        processes.wait_ready(PATIENCE)
        urls = {name: process.metrics or "" for name, process in all_.items()}
        targets = {name: url.removeprefix("http://").removesuffix("/metrics") for name, url in urls.items()}
        prometheus = Prometheus(tmp_path, targets)
        with prometheus.running():
            assert within(20, prometheus.answers), (tmp_path / "prometheus.log").read_text()
            assert len(without_data(prometheus, queries)) > len(queries) / 2
            # A rate needs a look before what is counted.
            assert within(PATIENCE, lambda: jobs_up(prometheus) == set(SERVICES)), jobs_up(prometheus)
            payments(kafka_server, 5, door)
            assert within(PATIENCE, lambda: not without_data(prometheus, queries)), without_data(prometheus, queries)
            assert jobs_up(prometheus) == set(SERVICES)
            assert within(10, lambda: not unsound(prometheus)), unsound(prometheus)
            fires = {one["alertname"]: one["severity"] for one in prometheus.series('ALERTS{alertstate="firing"}')}
            assert fires == {"DeadLetters": "ticket"}, "one payment was none, nothing else is wrong"
        processes.check()
