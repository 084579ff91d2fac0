"""`python -m services.dlq fraud list|show|replay`: what could not be processed, and back with it once it can be."""

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import time
from contextlib import aclosing
from datetime import UTC, datetime

from services.dlq import output
from services.dlq.letter import DONE, standing
from services.dlq.log import Choice, DeadLetterLog
from services.dlq.replay import Replay
from streams.arguments import argument
from streams.console import ends_quietly, refuse
from streams.runtime.compression import CorruptRecordsError
from streams.runtime.sender import Sender, UndeliveredError
from streams.runtime.topics import KafkaUnavailable, TopicMismatch, answering, create_topics
from streams.settings import Settings, SettingsError
from streams.stores.files import milliseconds
from streams.usecases import USECASES

COMMANDS = {
    "list": "List letters in the order of their burial",
    "show": "Show all of one letter",
    "replay": "Send letters back as they came, once what was wrong is put right",
}


class NotThere(Exception):
    """There is no such letter."""


@ends_quietly
def main(arguments: list[str] | None = None) -> int:
    """List, show or replay as told; the exit code is 0 if that could be done."""
    given = sys.argv[1:] if arguments is None else arguments
    if given and given[0] in COMMANDS and len(USECASES) == 1:
        given = [*USECASES, *given]
    options = _parser().parse_args(given)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what matters of its warnings is in the errors raised
    try:
        tool = Tool(options, Settings.read(os.environ))
        if options.command == "replay":
            tool.create()
        asyncio.run(tool.run())
    except SettingsError as error:
        return refuse(error, 2)
    except (KafkaUnavailable, TopicMismatch, UndeliveredError, CorruptRecordsError, NotThere) as error:
        return refuse(error, 1)
    return 0


class Tool:
    """One command on the DLQ of a use case."""

    def __init__(self, options: argparse.Namespace, settings: Settings) -> None:
        usecase = USECASES[options.usecase].deployed(settings.deployment, settings.publish)
        topics = usecase.topics(settings.partitions)
        self._options, self._kafka = options, settings.kafka
        self._topics = {topic.name: topic for topic in topics.taking_back}
        self._all, self._dlq = topics, topics.dlq
        self._log = DeadLetterLog(settings.kafka, topics.dlq)

    def create(self) -> None:
        """Create the topics that are missing; blocks. To be called before a replay."""
        create_topics(self._kafka, self._all)

    async def run(self) -> None:
        """Carry the command out; raises KafkaUnavailable, TopicMismatch, UndeliveredError, NotThere."""
        await {"list": self._list, "show": self._show, "replay": self._replay}[self._options.command]()

    async def _list(self) -> None:
        options, choice, shown, hidden = self._options, _choice(self._options), 0, 0
        replayed = await self._log.replayed(choice)
        if not options.json:
            print(output.HEADER)
        async with aclosing(self._log.letters(choice)) as letters:
            async for letter in letters:
                state, why = standing(letter, replayed, self._topics)
                if state == DONE and not options.all:
                    hidden += 1
                    continue
                if shown == options.limit:
                    break
                shown += 1
                facts = output.facts(letter, state, why)
                print(json.dumps(facts) if options.json else output.line(letter, state, why), flush=True)
        if not options.json:
            print(f"{shown} letters" + (f"; {hidden} replayed ones are left out (--all shows them)" if hidden else ""))

    async def _show(self) -> None:
        choice = Choice(offset=self._options.offset)
        replayed = await self._log.replayed(choice)
        async with aclosing(self._log.letters(choice)) as letters:
            async for letter in letters:
                state, why = standing(letter, replayed, self._topics)
                facts = output.facts(letter, state, why) | output.content(letter)
                print(json.dumps(facts) if self._options.json else output.page(letter, state, why))
                return
        raise NotThere(f"{self._dlq.name} has no letter at offset {choice.offset}")

    async def _replay(self) -> None:
        options, choice = self._options, _choice(self._options)
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        replayed = await self._log.replayed(choice)
        sender = Sender(self._kafka, "dlq-replay")
        replay = Replay(sender, self._dlq.name, self._topics, replayed, options.force)
        try:
            with answering(self._kafka):
                await sender.start()
                async with aclosing(self._log.letters(choice)) as letters:
                    await replay.run(letters, lambda: stop.is_set() or replay.taken == options.limit)
        finally:
            await sender.stop()
            print(json.dumps(replay.counts()) if options.json else "\n".join(replay.told()))


def _choice(options: argparse.Namespace) -> Choice:
    return Choice(options.reason, options.topic, options.partition, options.since, options.offset)


def _since(text: str) -> int:
    """Return when a duration before now, or a date and time, is, in epoch ms."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return int(time.time() * 1000) - milliseconds(text)
    return max(0, int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000))


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise ValueError(f"'{text}': must be a whole number")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.dlq",
        description="Records that could not be processed: list them, show one, send them back to their topic.",
        epilog="Servers and partitions come from HEADRACE_KAFKA and HEADRACE_PARTITIONS.",
    )
    parser.add_argument("usecase", choices=sorted(USECASES))
    add = parser.add_subparsers(dest="command", required=True, metavar="|".join(COMMANDS)).add_parser
    list_, show, replay = (add(name, help=text, description=f"{text}.") for name, text in COMMANDS.items())
    show.add_argument("offset", type=argument(_whole), help="the letter's offset in the DLQ")
    for command in list_, replay:
        _add_choice(command)
    list_.add_argument("--all", action="store_true", help="those that were replayed, too")
    replay.add_argument("--force", action="store_true", help="those that are parked, too")
    for command in list_, show, replay:
        command.add_argument("--json", action="store_true", help="JSON instead of text")
    return parser


def _add_choice(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--reason", metavar="REASON", help="only this reason, such as invalid or unknown_event")
    add("--topic", metavar="TOPIC", help="only letters from this topic")
    add("--partition", type=argument(_whole), metavar="N", help="only letters from this partition")
    add("--since", type=argument(_since), metavar="WHEN", help="buried since: 2h, 7d, or 2026-01-31T12:00 (UTC)")
    add("--offset", type=argument(_whole), metavar="N", help="only the letter at this offset of the DLQ")
    add("--limit", type=argument(_whole), metavar="N", help="the first N at most")


if __name__ == "__main__":
    sys.exit(main())
