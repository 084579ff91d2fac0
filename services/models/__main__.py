"""`python -m services.models fraud list|show|diff|changes|promote|rollback|relearn`: models, and who is champion."""

import argparse
import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from services.models.access import Access
from services.models.change import promote, rollback
from services.models.choice import Refused
from services.models.look import changes, diff, list_models, show
from services.models.relearning import relearn_without
from streams.arguments import argument, spelt_out, whole
from streams.console import ends_quietly, refuse
from streams.models.snapshot import SnapshotRefused
from streams.runtime.compression import CorruptRecordsError
from streams.runtime.sender import UndeliveredError
from streams.runtime.topics import KafkaUnavailable, TopicMismatch
from streams.settings import Settings, SettingsError
from streams.stores.files import milliseconds
from streams.stores.history import StoreUnreachable
from streams.usecases import USECASES

COMMANDS: dict[str, tuple[Callable[[Access, argparse.Namespace], Coroutine[Any, Any, None]], str]] = {
    "list": (list_models, "List snapshots, the newest first"),
    "show": (show, "Show all that is known of one snapshot"),
    "diff": (diff, "Show what two snapshots differ in, their weights too"),
    "changes": (changes, "List who changed the champion, when and why"),
    "promote": (promote, "Make the champion: a recipe's newest snapshot from now on, or one snapshot for good"),
    "rollback": (rollback, "Pin a snapshot as the champion: the one named, or what it was before the last change"),
    "relearn": (relearn_without, "Learn again from a snapshot on, without some examples, while no learner runs"),
}

FAILURES = (
    KafkaUnavailable,
    TopicMismatch,
    UndeliveredError,
    CorruptRecordsError,
    StoreUnreachable,
    SnapshotRefused,
    Refused,
)


@ends_quietly
def main(arguments: list[str] | None = None) -> int:
    """Do as told; the exit code is 0 if that could be done, 1 if not, 2 for a wrong setting or argument."""
    given = sys.argv[1:] if arguments is None else arguments
    if given and given[0] in COMMANDS and len(USECASES) == 1:
        given = [*USECASES, *given]
    parser = _parser()
    options = parser.parse_args(spelt_out(given, parser.error))
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what matters of its warnings is in the errors raised
    try:
        access = Access(USECASES[options.usecase], Settings.read(os.environ))
        access.check()
        asyncio.run(COMMANDS[options.command][0](access, options))
    except SettingsError as error:
        return refuse(error, 2)
    except FAILURES as error:
        return refuse(error, 1)
    return 0


def _when(text: str) -> int:
    """Return when a duration before now, or a date and time, is, in epoch ms."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return int(time.time() * 1000) - milliseconds(text)
    return max(0, int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000))


def _reason(text: str) -> str:
    if not text.strip() or len(text) > 1000:
        raise ValueError("must say something, in 1,000 characters at most")
    return text.strip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.models",
        description="The models of a use case: list them, compare them, say which is the champion, learn again.",
        epilog="Servers and keys come from HEADRACE_KAFKA, HEADRACE_CASSANDRA, HEADRACE_KEYSPACE and "
        "HEADRACE_MODEL_KEY. An argument @FILE stands for the lines of a file.",
    )
    parser.add_argument("usecase", choices=sorted(USECASES))
    add = parser.add_subparsers(dest="command", required=True, metavar="|".join(COMMANDS)).add_parser
    commands = {name: add(name, help=text, description=f"{text}.") for name, (_, text) in COMMANDS.items()}
    _add_listing(commands["list"])
    commands["changes"].add_argument("--limit", type=argument(whole), default=20, metavar="N", help="N at most (20)")
    commands["show"].add_argument("model", metavar="MODEL_ID", help="such as logistic@1200")
    for name in "a", "b":
        commands["diff"].add_argument(name, metavar=name.upper(), help="a MODEL_ID")
    commands["promote"].add_argument("model", metavar="RECIPE|MODEL_ID", help="such as logistic or logistic@1200")
    commands["rollback"].add_argument("model", metavar="MODEL_ID", nargs="?", help="such as logistic@1200")
    relearn = commands["relearn"].add_argument
    relearn(
        "--from", dest="model", required=True, metavar="MODEL_ID", help="a snapshot from before them; start: unlearnt"
    )
    relearn("--without", nargs="+", required=True, metavar="EVENT_ID", help="events that are not to be learnt")
    for name in "promote", "rollback":
        commands[name].add_argument("--reason", type=argument(_reason), required=True, help="why, for the history")
    for command in commands.values():
        command.add_argument("--json", action="store_true", help="JSON instead of text")
    return parser


def _add_listing(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--recipe", metavar="RECIPE", help="only snapshots of this recipe")
    add("--kept", action="store_true", help="only those whose bytes are still kept")
    add("--before", type=argument(_when), metavar="WHEN", help="made before: 2h, 7d, or 2026-01-31T12:00 (UTC)")
    add("--limit", type=argument(whole), default=20, metavar="N", help="N at most (default: 20)")


if __name__ == "__main__":
    sys.exit(main())
