"""docker-compose.yml as a user has it: brought up by the command, with ports, secrets and a name of its own."""

import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from infra.docker import env
from infra.docker.local.building import PYTHON, services
from infra.docker.local.client import docker, exists
from infra.local.ports import HOST, free_port

ROOT = Path(__file__).parents[2]
PORTS = ("KAFKA", "VALKEY", "CASSANDRA", "FEEDBACK", "PROMETHEUS", "ALERTMANAGER", "GRAFANA")
POLL = 0.5  # seconds


def command() -> list[str]:
    """Compose, as a plugin of docker or by itself."""
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if plugin.returncode == 0:
        return ["docker", "compose"]
    found = shutil.which("docker-compose")
    assert found, "neither docker compose nor docker-compose is installed"
    return [found]


@dataclass
class Stack:
    """One project of docker-compose.yml, its .env in `folder`; local images where they are built."""

    name: str
    folder: Path
    ports: dict[str, int] = field(default_factory=lambda: {f"{server}_PORT": free_port() for server in PORTS})

    def write_env(self, *options: str, **changes: str) -> None:
        """Write the .env as `make env` does, then change some of it."""
        file = self.folder / ".env"
        file.unlink(missing_ok=True)
        assert env.main([*(["--local"] if exists(PYTHON) else []), *options, str(file)]) == 0
        values = {name: str(port) for name, port in self.ports.items()} | changes
        file.write_text(env.filled(file.read_text(), values))

    @property
    def env(self) -> dict[str, str]:
        """What .env says, by variable."""
        return dict(re.findall(r"^(\w+)=(.*)$", (self.folder / ".env").read_text(), re.MULTILINE))

    def compose(self, *arguments: str, timeout: float = 300) -> "subprocess.CompletedProcess[str]":
        """What compose says to `arguments`, with nothing of this process's environment that it would read."""
        who = ["--env-file", str(self.folder / ".env"), "--project-name", self.name]
        return subprocess.run(
            [*command(), *who, *arguments],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if re.fullmatch("PATH|HOME|DOCKER_.*", name)},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def build(self) -> None:
        """Build the services' image of the code as it is, from the Python that can be had; pull where one can."""
        if exists(PYTHON):
            services()
            return
        for what in (["build", "init"], ["pull", *(name.lower() for name in PORTS if name != "FEEDBACK")]):
            done = self.compose(*what, timeout=1200)
            assert done.returncode == 0, done.stderr[-3000:]

    def up(self) -> float:
        """Bring everything up; return after how many seconds all of it was healthy."""
        begin = time.monotonic()
        done = self.compose("up", "--detach")
        assert done.returncode == 0, f"{done.stderr[-3000:]}\n{self.states()}"
        while waiting := {name: state for name, state in self.states().items() if state not in ("healthy", "exited 0")}:
            assert time.monotonic() < begin + 300, f"{waiting}\n{self.compose('logs', '--tail', '8', *waiting).stdout}"
            time.sleep(POLL)
        return time.monotonic() - begin

    def down(self) -> None:
        """Take it down with its data."""
        done = self.compose("down", "--volumes", "--timeout", "20")
        assert done.returncode == 0, done.stderr

    def containers(self) -> dict[str, Any]:
        """What Docker knows of each container, by service."""
        ids = docker("ps", "--all", "--quiet", "--filter", self._label).split()
        found = json.loads(docker("inspect", *ids)) if ids else []
        return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in found}

    def states(self) -> Mapping[str, str]:
        """`healthy`, `starting`, `unhealthy`, or how it ended, by service."""
        return {name: _state(one["State"]) for name, one in self.containers().items()}

    def left(self) -> dict[str, list[str]]:
        """What there is of the project, by kind."""
        listings = {"container": ("ps", "--all"), "network": ("network", "ls"), "volume": ("volume", "ls")}
        found = {kind: docker(*how, "--quiet", "--filter", self._label).split() for kind, how in listings.items()}
        return {kind: names for kind, names in found.items() if names}

    def bridge(self) -> str:
        """The interface of this machine that joins the containers' network, once there is one."""
        (network,) = docker("network", "ls", "--quiet", "--no-trunc", "--filter", self._label).split()
        return f"br-{network[:12]}"

    def asked(self, server: str, path: str) -> Any:
        """The JSON that a server answers over HTTP."""
        with urllib.request.urlopen(f"http://{HOST}:{self.ports[f'{server}_PORT']}{path}", timeout=10) as answer:
            return json.load(answer)

    def sent(self, label: object, **headers: str) -> int:
        """The status that the feedback service answers to a label."""
        url = f"http://{HOST}:{self.ports['FEEDBACK_PORT']}/labels"
        sending = urllib.request.Request(
            url, json.dumps(label).encode(), {"Content-Type": "application/json", **headers}, method="POST"
        )
        try:
            with urllib.request.urlopen(sending, timeout=20) as answer:
                return int(answer.status)
        except HTTPError as refusal:
            return refusal.code

    @property
    def _label(self) -> str:
        return f"label=com.docker.compose.project={self.name}"


def _state(state: Mapping[str, Any]) -> str:
    if state["Status"] != "running":
        return f"{state['Status']} {state['ExitCode']}"
    return str(state["Health"]["Status"]) if "Health" in state else "running"
