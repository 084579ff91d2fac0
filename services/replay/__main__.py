"""`python -m services.replay fraud --input FILE`: a file of events onto the live topics."""

import argparse
import os
import sys
import time
from functools import partial
from math import inf
from pathlib import Path

from tqdm import tqdm

from services.replay.replay import Replay
from services.replay.schedule import known_by
from streams.arguments import argument, whole
from streams.console import ends_quietly
from streams.runtime.producer import Producer, stop_flag
from streams.runtime.topics import KafkaUnavailable, TopicMismatch, create_topics
from streams.settings import Settings, SettingsError
from streams.stores.files import FileError, mapping, milliseconds, read
from streams.usecases import USECASES

LINGER_MS = 20


@ends_quietly
def main(arguments: list[str] | None = None) -> int:
    """Replay as told; the exit code is 0 once everything is acknowledged."""
    options = _parser().parse_args(arguments)
    try:
        return _replay(options, Settings.read(os.environ))
    except (SettingsError, FileError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (KafkaUnavailable, TopicMismatch) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped: nothing was sent", file=sys.stderr)
        return 130


def _replay(options: argparse.Namespace, settings: Settings) -> int:
    usecase = USECASES[options.usecase].deployed(settings.deployment, settings.publish)
    latest = int(time.time() * 1000) + settings.max_ahead_ms
    events = read(options.input, usecase, options.columns, latest)
    events = events if options.limit is None else events.head(options.limit)
    labelled = 0 if events.labels is None else known_by(events.times, options.label_delay, latest)
    topics = usecase.topics(settings.partitions)
    create_topics(settings.kafka, topics, settings.replication)
    stop, begin = stop_flag(), time.monotonic()
    with (
        Producer(settings.kafka, LINGER_MS) as producer,
        tqdm(total=len(events), unit=" events", desc=f"{usecase.name} replay", mininterval=0.5) as bar,
    ):
        replay = Replay(
            producer, topics, events, options.label_delay, labelled, options.speed, stop, partial(bar.update, 1)
        )
        replay.run()
    done = "stopped" if stop.is_set() else "replayed"
    seconds = time.monotonic() - begin
    print(f"{done}: {replay.sent_events} events and {replay.sent_labels} labels in {seconds:.1f} s")
    if events.labels is not None and labelled < len(events):
        print(f"{len(events) - labelled} labels lie in the future and were left out")
    return 130 if stop.is_set() else 0


def _speed(text: str) -> float:
    try:
        speed = inf if text == "max" else float(text)
    except ValueError:
        speed = 0
    if not speed > 0:
        raise ValueError(f"'{text}': must be a number above 0, or max")
    return speed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.replay",
        description="Send a file of events onto the live topics, in event-time order, each event's label "
        "following it by the label delay in stream time. The file is validated before anything is sent.",
        epilog="Servers and partitions come from HEADRACE_KAFKA and HEADRACE_PARTITIONS.",
    )
    add = parser.add_argument
    add("usecase", choices=sorted(USECASES))
    add("--input", type=Path, required=True, metavar="FILE", help="a Parquet or CSV file")
    add(
        "--columns",
        type=argument(mapping),
        default={},
        metavar="FIELD=COLUMN,…",
        help="the columns whose names differ from the event's fields; label=COLUMN for the label",
    )
    add(
        "--speed",
        type=argument(_speed),
        default=inf,
        metavar="N|max",
        help="stream seconds in a second, or as fast as it goes (default: max)",
    )
    add(
        "--label-delay",
        type=argument(milliseconds),
        default=milliseconds("7d"),
        metavar="7d",
        help="how long after its event a label comes, such as 7d, 12h or 20s (default: 7d)",
    )
    add("--limit", type=argument(whole), metavar="N", help="only the first N events and their labels")
    return parser


if __name__ == "__main__":
    sys.exit(main())
