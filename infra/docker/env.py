"""`python -m infra.docker.env`: a .env for docker-compose.yml, from .env.example, with secrets of its own.

With `--secure` it is for docker-compose.secure.yml as well: a password for each user, and certificates beside the file.
"""

import argparse
import os
import secrets
import sys
from pathlib import Path

from infra.docker import certificates
from infra.docker.users import ADMIN, USERS, password_of

ROOT = Path(__file__).parents[2]
SECRETS = ("HEADRACE_MODEL_KEY", "HEADRACE_FEEDBACK_TOKEN", "GRAFANA_PASSWORD")
LOCAL_IMAGES = {
    "PYTHON_IMAGE": "local/python:3.11",
    "KAFKA_IMAGE": "local/kafka:4.3.1",
    "VALKEY_IMAGE": "local/valkey:9",
    "CASSANDRA_IMAGE": "local/cassandra:5.0",
    "PROMETHEUS_IMAGE": "local/prometheus:bookworm",
    "ALERTMANAGER_IMAGE": "local/alertmanager:bookworm",
}
LOCAL = LOCAL_IMAGES | {"COMPOSE_PROFILES": "observe,demo"}
"""There is no Grafana to be built."""

PASSWORDS = tuple(password_of(user) for user in (ADMIN, *USERS))
SECURE = {"COMPOSE_FILE": "docker-compose.yml:docker-compose.secure.yml"}
SECURE_LOCAL = {"VALKEY_IMAGE": "local/redis:7"}
"""The Valkey that can be built here has no TLS."""


def main(arguments: list[str] | None = None) -> int:
    """Write the file, for its owner alone; the exit code is 1 where there is one already."""
    options = _parser().parse_args(arguments)
    values = {name: secrets.token_hex(32) for name in SECRETS} | (LOCAL if options.local else {})
    folder = options.file.absolute().parent / certificates.FOLDER
    if options.secure:
        values |= SECURE | (SECURE_LOCAL if options.local else {}) | {"CERTIFICATES": str(folder)}
        values |= {name: secrets.token_hex(32) for name in PASSWORDS}
    text = filled((ROOT / ".env.example").read_text(encoding="utf-8"), values)
    try:
        with os.fdopen(os.open(options.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
    except FileExistsError:
        print(f"error: {options.file} is there already and stays as it is", file=sys.stderr)
        return 1
    print(f"{options.file}: written, with new secrets")
    if options.secure:
        certificates.write(folder)
        print(f"{folder}: certificates, valid for {certificates.VALID.days} days")
    return 0


def filled(example: str, values: dict[str, str]) -> str:
    """Return the text with these variables' values in place of its own, or of none.

    >>> filled("# why\\nA=\\n#B=1\\n#C=\\n", {"A": "2", "B": "3"})
    '# why\\nA=2\\nB=3\\n#C=\\n'
    """
    lines = []
    for line in example.splitlines():
        name, equals, _ = line.removeprefix("#").partition("=")
        lines.append(f"{name}={values[name]}" if equals and name in values else line)
    return "\n".join([*lines, ""])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.docker.env", description=__doc__)
    parser.add_argument("--local", action="store_true", help="name the images of `python -m infra.docker.local build`")
    parser.add_argument("--secure", action="store_true", help="for docker-compose.secure.yml too, with certificates")
    parser.add_argument("file", nargs="?", type=Path, default=ROOT / ".env", help="default: .env at the project root")
    return parser


if __name__ == "__main__":
    sys.exit(main())
