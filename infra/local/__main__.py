"""`python -m infra.local prepare | up | status | down`: the local servers, detached from the terminal."""

import argparse
import os
import sys
from pathlib import Path

from . import classes
from .errors import LocalServerError
from .server import Server
from .stack import NAMES, LocalServers
from .state import recall

DEFAULT_FOLDER = Path(__file__).parents[2] / ".headrace"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 0 if it did what it says."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (LocalServerError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def prepare(_: argparse.Namespace) -> int:
    """Download the servers, and make them start quickly."""
    classes.prepare(progress=True, say=_tell)
    return 0


def up(options: argparse.Namespace) -> int:
    """Start what does not run yet."""
    asked = {name: getattr(options, f"{name}_port") for name in NAMES}
    ports = {name: port for name, port in asked.items() if port is not None}
    servers = LocalServers(options.data, options.only, progress=True, ports=ports, save=options.save, detached=True)
    servers.start(_ready)
    _tell(" ".join(f"{name}={value}" for name, value in servers.environment().items()))
    return 0


def down(options: argparse.Namespace) -> int:
    """Stop what runs."""
    servers = _recorded(options.data)
    if servers is None:
        _tell(f"no servers run on {options.data}")
        return 0
    running = {server.name for server in servers.servers if server.alive}
    servers.stop()
    for name in servers.only:
        _tell(f"{name:<10} {'stopped' if name in running else 'was not running any more'}")
    return 0


def status(options: argparse.Namespace) -> int:
    """Say which servers run and answer; the exit code is 0 if all of them do."""
    servers = _recorded(options.data)
    if servers is None:
        _tell(f"no servers run on {options.data}")
        return 1
    healthy = [_healthy(server) for server in servers.servers]
    return 0 if all(healthy) else 1


def _recorded(folder: Path) -> LocalServers | None:
    """The servers on record in this folder, with their ports and processes."""
    running = recall(folder)
    if not running:
        return None
    servers = LocalServers(folder, tuple(running), detached=True)
    for server in servers.servers:
        server.port, server.process_id = running[server.name]
    return servers


def _healthy(server: Server) -> bool:
    try:
        server.wait_healthy(timeout=5)
    except LocalServerError as error:
        _tell(str(error).splitlines()[0].removesuffix("; last log lines:"))
        return False
    _say(server, "running")
    return True


def _ready(server: Server, seconds: float, was_running: bool) -> None:
    _say(server, "already running" if was_running else f"ready in {seconds:.1f} s")


def _say(server: Server, what: str) -> None:
    pid = server.process_id.pid if server.process_id else "?"
    _tell(f"{server.name:<10} {server.address:<16} {what} (pid {pid}, log {server.log_path})")


def _tell(line: str) -> None:
    """Print a line, or nothing any more once nobody reads on (`| head`): what was asked for is done all the same."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name for name in NAMES if name in text.split(","))
    if set(names) != set(text.split(",")):
        raise argparse.ArgumentTypeError(f"{text}: choose from {','.join(NAMES)}")
    return names


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text} is not a port")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.local", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="prepare | up | status | down")
    commands.add_parser("prepare", help=prepare.__doc__).set_defaults(run=prepare)
    for run in (up, status, down):
        command = commands.add_parser(run.__name__, help=run.__doc__)
        command.set_defaults(run=run)
        command.add_argument(
            "--data",
            type=Path,
            default=DEFAULT_FOLDER,
            help="data folder (default: .headrace at the project root)",
        )
        if run is up:
            _add_up_options(command)
    return parser


def _add_up_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--only", type=_names, default=NAMES, help="e.g. kafka,valkey (default: all)")
    command.add_argument("--save", default="", help='snapshot rule of Valkey, e.g. "60 1" (default: none)')
    for name in NAMES:
        command.add_argument(f"--{name}-port", type=_port, help=f"port of {name} (default: a free one)")


if __name__ == "__main__":
    sys.exit(main())
