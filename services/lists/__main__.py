"""`python -m services.lists fraud add|remove|show`: entities that are blocked or allowed, whatever their score."""

import argparse
import asyncio
import json
import logging
import os
import sys
import time

from services.lists.log import ListLog
from streams.arguments import argument, spelt_out
from streams.console import ends_quietly, printable, refuse
from streams.decisions.policy import ALLOW, BLOCK
from streams.runtime.sender import UndeliveredError
from streams.runtime.topics import KafkaUnavailable, TopicMismatch
from streams.settings import Settings, SettingsError
from streams.usecases import USECASES

COMMANDS = {
    "add": "Put entities on a list, and off the other",
    "remove": "Take entities off their list",
    "show": "Show who is listed, since when and why",
}
LONGEST_ID, LONGEST_REASON = 128, 1000


@ends_quietly
def main(arguments: list[str] | None = None) -> int:
    """Do as told; the exit code is 0 if Kafka has it, 1 if not, 2 for a wrong setting or argument."""
    given = sys.argv[1:] if arguments is None else arguments
    if given and given[0] in COMMANDS and len(USECASES) == 1:
        given = [*USECASES, *given]
    parser = _parser()
    options = parser.parse_args(spelt_out(given, parser.error))
    entities = USECASES[options.usecase].entities
    if options.command != "show" and options.entity not in entities:
        parser.error(f"argument ENTITY: '{options.entity}': {options.usecase} has {', '.join(entities)}")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what matters of its warnings is in the errors raised
    try:
        settings = Settings.read(os.environ)
        log = ListLog(settings.kafka, USECASES[options.usecase].topics(settings.partitions).lists)
        log.create()
        asyncio.run(_run(options, log))
    except SettingsError as error:
        return refuse(error, 2)
    except (KafkaUnavailable, TopicMismatch, UndeliveredError) as error:
        return refuse(error, 1)
    return 0


async def _run(options: argparse.Namespace, log: ListLog) -> None:
    if options.command == "show":
        await _show(log, options.json)
        return
    if options.command == "add":
        await log.add(options.list, options.entity, options.ids, options.reason, int(time.time() * 1000))
    else:
        await log.remove(options.entity, options.ids)
    done = f"on the {options.list} list" if options.command == "add" else "on no list"
    print(f"{len(options.ids)} {options.entity} {'id' if len(options.ids) == 1 else 'ids'} {done}")


async def _show(log: ListLog, as_json: bool) -> None:
    entries = await log.entries()
    for one in entries:
        if as_json:
            facts = {"list": one.list, "entity": one.entity, "id": one.id}
            print(json.dumps(facts | {"created_at": one.created_at, "reason": one.reason}))
        else:
            since = time.strftime("%Y-%m-%d %H:%M", time.gmtime(one.created_at / 1000))
            print(f"{one.list:<5}  {one.entity:<10}  {printable(one.id):<24}  {since}  {printable(one.reason)}")
    if not as_json:
        print(f"{len(entries)} listed")


def _id(text: str) -> str:
    if not 1 <= len(text) <= LONGEST_ID:
        raise ValueError(f"an id has 1 to {LONGEST_ID} characters")
    return text


def _reason(text: str) -> str:
    if len(text) > LONGEST_REASON:
        raise ValueError(f"{LONGEST_REASON} characters at most")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.lists",
        description="Entities whose events are declined (block) or approved (allow) whatever their score. A change is "
        "in effect in every scorer at once, without a restart.",
        epilog="Kafka's address comes from HEADRACE_KAFKA. An argument @FILE stands for the lines of a file.",
    )
    parser.add_argument("usecase", choices=sorted(USECASES))
    add = parser.add_subparsers(dest="command", required=True, metavar="|".join(COMMANDS)).add_parser
    commands = {name: add(name, help=text, description=f"{text}.") for name, text in COMMANDS.items()}
    commands["add"].add_argument("list", choices=[BLOCK, ALLOW])
    for name in "add", "remove":
        commands[name].add_argument("entity", metavar="ENTITY", help="such as customer")
        commands[name].add_argument("ids", metavar="ID", nargs="+", type=argument(_id))
    commands["add"].add_argument("--reason", type=argument(_reason), default="", help="why, for those who come after")
    commands["show"].add_argument("--json", action="store_true", help="JSON lines instead of a table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
