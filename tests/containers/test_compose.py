"""docker-compose.yml brought up as a user would, watched at work, and taken down. The tests run in their order."""

import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest
from kafka import KafkaConsumer

from infra.docker.env import SECRETS
from infra.docker.local.client import docker
from infra.local.ports import HOST
from schemas.events import Score
from tests.containers.compose import ROOT, Stack
from tests.containers.sniffer import NAMES, Sniffer
from tests.local import within

pytestmark = [pytest.mark.containers("make compose-test brings docker-compose.yml up"), pytest.mark.timeout(600)]

OURS = {"worker", "learner", "history", "matured", "feedback"}
CODE = {"schemas", "streams", "services", "infra"}


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
    """One command brings everything up, healthy in 90 s on a machine with little else to do, in 180 s on any."""
    busy = psutil.cpu_percent(interval=3) > 50
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
    assert seconds < (180 if busy else 90)


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


def test_here_names_can_be_read_on_the_network(stack: Stack) -> None:
    """So the look that finds none on the secured network (test_secure_compose.py) would find them."""
    try:
        sniffer = Sniffer(stack.bridge())
    except OSError:
        pytest.skip("the network cannot be listened to here: it takes root's rights on the engine's own machine")
    with sniffer:
        assert within(60, lambda: any(NAMES[0] in segment.payload for segment in sniffer.segments()))


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
    label = {"event_id": "nobody-paid-this", "label_time": int(time.time() * 1000), "label": 0}
    token = stack.env["HEADRACE_FEEDBACK_TOKEN"]
    assert stack.sent(label) == 401
    assert stack.sent(label, Authorization=f"Bearer {token[:-1]}") == 401
    assert stack.sent(label, Authorization=f"Bearer {token}") == 202


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
    """Neither its history nor its environment sets a secret, no file looks like one or holds a private key."""
    image = stack.containers()["worker"]["Image"]
    told = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image) + docker("inspect", image)
    assert not [name for name in SECRETS if f"{name}=" in told]

    def shell(command: str) -> list[str]:
        return docker("run", "--rm", "--network", "none", "--entrypoint", "sh", image, "-c", command).split()

    listed = shell("find /headrace -type f")
    assert {Path(file).parts[2] for file in listed} == CODE
    assert not [file for file in listed if "/.git" in file or secret(Path(file))]
    assert not shell("grep -rlE 'BEGIN [A-Z ]*PRIVATE KEY' /headrace /venv || [ $? = 1 ]")


def test_what_is_secret_does_not_reach_the_builder(tmp_path: Path) -> None:
    """Secrets and other files that lie about where the image is built are not in its context."""
    context, seen = tmp_path / "context", tmp_path / "seen"
    names = (".env", ".env.production", "ca.pem", "broker.key", "broker.crt", "keys.p12", "code.py")
    for folder in (context, context / ".git", *(context / part for part in sorted(CODE)), context / "infra/security"):
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / name).write_text("planted")
    shutil.copy(ROOT / ".dockerignore", context)
    everything = tmp_path / "Dockerfile"
    everything.write_text("FROM scratch\nCOPY . /\n")
    docker("build", "--quiet", "--output", str(seen), "--file", str(everything), str(context))
    found = {path.relative_to(seen) for path in seen.rglob("*") if path.is_file()}
    assert found == {Path(folder, "code.py") for folder in (*CODE, "infra/security")}


def secret(file: Path) -> bool:
    return file.name.startswith(".env") or file.suffix in (".pem", ".key", ".crt", ".p12")


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
