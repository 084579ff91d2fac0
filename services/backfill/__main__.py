"""`python -m services.backfill fraud --input FILE`: the states of a deployment that has not started yet."""

import argparse
import asyncio
import logging
import os
import sys
import time
from pathlib import Path

import numpy as np

from schemas.codec import encode
from services.backfill.keep import AlreadyThere, keep
from services.backfill.log import read_log
from services.backfill.past import Past, fold
from streams.arguments import argument
from streams.console import ends_quietly, refuse
from streams.features.seen import Seen
from streams.models.lessons import Lessons
from streams.runtime.producer import Producer
from streams.runtime.topics import KafkaUnavailable, TopicMismatch, create_topics
from streams.settings import Settings, SettingsError
from streams.stores.files import Events, FileError, mapping, milliseconds, read
from streams.stores.redis import RedisStateStore
from streams.stores.state import Fenced, StoreRefused, StoreUnavailable
from streams.usecases import USECASES, UseCase


@ends_quietly
def main(arguments: list[str] | None = None) -> int:
    """Backfill as told; the exit code is 0 once the deployment's workers may be started."""
    options = _parser().parse_args(arguments)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what matters of its warnings is in the errors raised
    try:
        settings = Settings.read(os.environ)
        settings.signing_key()
        usecase = USECASES[options.usecase].deployed(settings.deployment, settings.publish)
        now = int(time.time() * 1000)
        file = read(options.input, usecase, options.columns, now + settings.max_ahead_ms)
        create_topics(settings.kafka, usecase.topics(settings.partitions), settings.replication)
        past, kept = asyncio.run(_backfill(settings, file, options.label_delay, now))
    except (SettingsError, FileError) as error:
        return refuse(error, 2)
    except (KafkaUnavailable, TopicMismatch, AlreadyThere, StoreUnavailable, StoreRefused, Fenced) as error:
        return refuse(error, 1)
    models = ", ".join(learner.model_id for learner in past.learners.values())
    print(
        f"{usecase.full_name}: {past.from_file} events of the file, {past.from_log} of Kafka, {past.labelled} labels "
        f"({past.unknown} more are of events in neither): {kept} states and the models {models}"
    )
    return 0


async def _backfill(settings: Settings, file: Events, delay: int, now: int) -> tuple[Past, int]:
    usecase, topics = file.usecase, file.usecase.topics(settings.partitions)
    # The store's time to live is the workers'.
    ttl = usecase.features.longest_keep + settings.max_ahead_ms + topics.events.retention_ms
    store = RedisStateStore(settings.redis, ttl)
    try:
        await store.ping()
        log = await read_log(settings.kafka, usecase, topics, now + settings.max_ahead_ms)
        past = fold(usecase, file, delay, now, log.events, log.labels)
        model = _announcement(past, usecase, log.ends[topics.labels.name], now, settings.signing_key())

        def announce() -> None:
            with Producer(settings.kafka, linger_ms=0) as producer:
                producer.send(topics.models.name, model, usecase.name.encode(), partition=0)

        return past, await keep(store, usecase, topics, past.pipeline, log, announce)
    finally:
        await store.close()


def _announcement(past: Past, usecase: UseCase, label_ends: list[int], now: int, key: bytes) -> bytes:
    """Return the models as their learner would announce them, which goes on with the labels that are still to come."""
    lessons = Lessons(usecase.recipes, usecase.features.names, usecase.features.fingerprint)
    lessons.learners = past.learners
    lessons.seen = Seen.all_up_to(np.array(label_ends, np.int64) - 1)
    return encode(lessons.announce(now, key))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.backfill",
        description="Fold a file of events together with what Kafka has of them, each event once, and keep the states "
        "as those of the deployment that HEADRACE_DEPLOYMENT names. Its workers are started afterwards and score from "
        "there on. Needed where Kafka does not reach back as far as the longest window.",
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
        "--label-delay",
        type=argument(milliseconds),
        default=milliseconds("7d"),
        metavar="7d",
        help="how long after its event a label of the file became known (default: 7d)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
