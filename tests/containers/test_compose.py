"""docker-compose.yml brought up as a user would, watched at work, and taken down. The tests run in their order."""

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError

import msgspec
import pytest
from kafka import KafkaConsumer

from infra.docker.env import SECRETS
from infra.docker.local.client import docker
from infra.local.ports import HOST
from schemas.events import Score
from tests.containers.compose import Stack
from tests.local import within

pytestmark = [pytest.mark.containers("make compose-test brings docker-compose.yml up"), pytest.mark.timeout(600)]

OURS = {"worker", "learner", "history", "matured", "feedback"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole system, observed and with live payments."""
    stack = Stack(f"headrace-test-{os.getpid()}", tmp_path_factory.mktemp("compose"))
    stack.write_env()
    stack.build()
    try:
        yield stack
    finally:
        stack.down()


def test_all_is_healthy_soon(stack: Stack) -> None:
    """One command brings everything up, healthy in less than 90 s where the machine has nothing else to do."""
    busy = os.getloadavg()[0] > (os.cpu_count() or 1)
    seconds = stack.up()
    print(f"healthy after {seconds:.0f} s")
    assert {
        "kafka",
        "valkey",
        "cassandra",
        "prometheus",
        "alertmanager",
        "simulator",
        "init",
        *OURS,
    } <= stack.states().keys()
    assert busy or seconds < 90


def test_live_payments_are_scored(stack: Stack) -> None:
    """A program on this machine reads scores of payments from Kafka."""
    consumer = KafkaConsumer(
        "fraud.scores", bootstrap_servers=f"{HOST}:{stack.ports['KAFKA_PORT']}", auto_offset_reset="earliest"
    )
    found: list[Score] = []
    decode = msgspec.json.Decoder(Score).decode

    def read() -> bool:
        for records in consumer.poll(1000).values():
            found.extend(decode(record.value) for record in records)
        return len(found) >= 200

    try:
        assert within(60, read)
    finally:
        consumer.close()
    assert all(0 <= score.score <= 1 for score in found)


def test_prometheus_has_every_target_up(stack: Stack) -> None:
    """Each service is scraped and up, and Alertmanager is found."""

    def up() -> bool:
        targets = stack.asked("PROMETHEUS", "/api/v1/targets")["data"]["activeTargets"]
        return {one["labels"]["job"] for one in targets if one["health"] == "up"} == OURS and len(targets) == len(OURS)

    def found() -> bool:
        return len(stack.asked("PROMETHEUS", "/api/v1/alertmanagers")["data"]["activeAlertmanagers"]) == 1

    assert within(60, up)
    assert within(60, found)


def test_labels_are_for_who_has_the_token(stack: Stack) -> None:
    """The door that takes labels is open to nobody without its token."""
    with pytest.raises(HTTPError) as refused:
        stack.asked("FEEDBACK", "/labels")
    assert refused.value.code in (401, 405)


def test_what_a_service_may(stack: Stack) -> None:
    """Ours run as nobody's user, on a read-only file system, without capabilities; no port is open to others."""
    containers = stack.containers()
    for name in OURS:
        host = containers[name]["HostConfig"]
        assert containers[name]["Config"]["User"] == "10001:10001"
        assert (host["ReadonlyRootfs"], host["CapDrop"], host["Memory"] > 0) == (True, ["ALL"], True)
    bound = [
        binding["HostIp"]
        for one in containers.values()
        for bindings in one["NetworkSettings"]["Ports"].values()
        for binding in bindings or []
    ]
    assert bound
    assert set(bound) == {HOST}


def test_no_secret_is_in_the_image(stack: Stack) -> None:
    """Neither the layers' history nor a file of ours holds a secret, or what is no code of the services."""
    values = dict(re.findall(r"^(\w+)=(.*)$", (stack.folder / ".env").read_text(), re.MULTILINE))
    image = stack.containers()["worker"]["Image"]
    told = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image) + docker("inspect", image)
    assert not [name for name in SECRETS if values[name] in told]
    listed = docker(
        "run", "--rm", "--network", "none", "--entrypoint", "find", image, "/headrace", "-type", "f"
    ).split()
    assert {Path(file).parts[2] for file in listed} == {"schemas", "streams", "services", "infra"}
    assert not [file for file in listed if Path(file).suffix in (".env", ".pem", ".key", ".crt") or "/.git" in file]


def test_down_leaves_nothing(stack: Stack) -> None:
    """No container, network or volume stays, those without a name included."""
    mounted = {mount["Name"] for one in stack.containers().values() for mount in one["Mounts"] if "Name" in mount}
    assert mounted
    stack.down()
    assert stack.left() == {}
    assert not mounted & set(docker("volume", "ls", "--quiet").split())


@pytest.mark.parametrize("secret", SECRETS)
def test_a_missing_secret_is_named(secret: str, tmp_path: Path) -> None:
    """Without one of its secrets compose starts nothing and says which it is."""
    stack = Stack(f"headrace-test-{os.getpid()}-secret", tmp_path)
    stack.write_env(**{secret: ""})
    done = stack.compose("up", "--detach")
    assert done.returncode != 0
    assert f"{secret} is not set" in done.stderr
    assert stack.left() == {}


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """A port that somebody else has is in the message."""
    stack = Stack(f"headrace-test-{os.getpid()}-port", tmp_path)
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        stack.write_env(VALKEY_PORT=str(port))
        try:
            done = stack.compose("up", "--detach", "--no-deps", "valkey")
        finally:
            stack.down()
    assert done.returncode != 0
    assert f"{HOST}:{port}" in done.stderr
