"""Which images the containers are started from: the public ones, or those built here where nothing can be pulled."""

import subprocess
import sys
from pathlib import Path

import docker
from docker.errors import DockerException, ImageNotFound
from testcontainers.core.config import testcontainers_config
from testcontainers.core.docker_client import DockerClient

PUBLIC = {"kafka": "confluentinc/cp-kafka:7.6.0", "valkey": "valkey/valkey:9", "cassandra": "cassandra:5.0"}
"""What testcontainers' modules are made for; its Kafka module needs Confluent's layout of the image."""
BUILT = {"kafka": "local/confluentinc/cp-kafka:7.6.0", "valkey": "local/valkey:9", "cassandra": "local/cassandra:5.0"}
"""Images that behave as those do, from `python -m infra.docker.local build`."""
ROOT = Path(__file__).parents[2]


def engine() -> docker.DockerClient | None:
    """The Docker engine that answers, if there is one."""
    try:
        client = DockerClient().client
        client.ping()
    except DockerException:
        return None
    return client


def image(client: docker.DockerClient, server: str) -> str | None:
    """The name of the image that is here for a server: the public one, else the one built here."""
    for name in (PUBLIC[server], BUILT[server]):
        try:
            client.images.get(testcontainers_config.hub_image_name_prefix + name)
        except ImageNotFound:
            continue
        return name
    return None


def obstacle() -> str | None:
    """Why no container can be started now, None if they can; nothing is pulled or built to find out."""
    client = engine()
    if client is None:
        return "no Docker engine answers"
    absent = [PUBLIC[server] for server in PUBLIC if image(client, server) is None]
    return f"no image {', '.join(absent)} here (make test-containers gets them)" if absent else None


def provide() -> None:
    """Pull the images that are not here; build them where they cannot be pulled."""
    client = engine()
    if client is None:
        raise SystemExit("no Docker engine answers: start one, or run `make test`, which needs none")
    for server in [server for server in PUBLIC if image(client, server) is None]:
        if not _pulled(client, testcontainers_config.hub_image_name_prefix + PUBLIC[server]):
            print("building the images here", flush=True)
            if subprocess.run([sys.executable, "-m", "infra.docker.local", "build"], cwd=ROOT, check=False).returncode:
                raise SystemExit("the images can neither be pulled nor built here")
            break
    if why := obstacle():
        raise SystemExit(why)


def _pulled(client: docker.DockerClient, name: str) -> bool:
    print(f"pulling {name}", flush=True)
    try:
        client.images.pull(name)
    except DockerException as error:
        print(f"it cannot be pulled: {getattr(error, 'explanation', error)}", flush=True)
        return False
    return True
