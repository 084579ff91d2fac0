"""A pipeline whose champion can have two challengers in its shadow, and the models that are announced to it.

The challengers are those of card fraud, and copies of the champion where it has fewer. All have learnt: weights that
nobody ever touched would be read from one page of zeros.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
from kafka import KafkaConsumer, TopicPartition

from schemas.codec import encode
from schemas.events import Score
from schemas.topics import Topic
from streams.app import StageWorker
from streams.features.pipeline import Events, Labels, Pipeline
from streams.models.lessons import Lessons
from streams.models.recipes import RECIPES, Recipe
from streams.process import serve
from streams.runtime.producer import Producer
from streams.usecases import USECASES
from streams.usecases.fraud import FRAUD
from tests.bench.worker import BenchError
from tests.bench.workload import Payment, Workload

CHAMPION, *OTHERS = FRAUD.recipes
COPIES = [f"{CHAMPION}-{number}" for number in range(2, 4 - len(OTHERS[:2]))]
SHADOWED = replace(FRAUD, name="shadowed", recipes=(CHAMPION, *OTHERS[:2], *COPIES))
RECIPES.update((name, Recipe(name, RECIPES[CHAMPION].make)) for name in COPIES)
USECASES[SHADOWED.name] = SHADOWED


def learnt(events: Workload) -> Lessons:
    """Return what all recipes have learnt of `events`; no labels reach the features, as in the benchmark."""
    features = FRAUD.features
    payments = msgspec.json.Decoder(Payment)
    decoded = [payments.decode(value) for value in events.values]
    ids = [one.event_id.encode() for one in decoded]
    times = np.array([one.event_time for one in decoded])
    keys = {stage.entity: [getattr(one, stage.key).encode() for one in decoded] for stage in features.stages}
    values = np.array([[getattr(one, name) for name in features.values] for one in decoded], np.float64)
    labels = np.array([one.label for one in decoded], np.int8)
    nothing = Labels([], times[:0], {stage.entity: [] for stage in features.stages}, values[:0, 0])
    rows = Pipeline(features).fold(Events(ids, times, keys, values), nothing)
    lessons = Lessons(SHADOWED.recipes, features.names, features.fingerprint)
    for learner in lessons.learners.values():
        learner.learn_rows(rows, labels, np.ones(len(rows)))
    return lessons


def announce(kafka: str, lessons: Lessons, recipes: Sequence[str], topic: str, key: bytes) -> None:
    """Announce what was learnt by some recipes."""
    announcement = lessons.announce(int(time.time() * 1000), key)
    models = [model for model in announcement.models if model.recipe in recipes]
    with Producer(kafka, linger_ms=0) as producer:
        producer.send(topic, encode(msgspec.structs.replace(announcement, models=models)), SHADOWED.name.encode())


def check_shadow(kafka: str, scores: Topic, recipes: Sequence[str]) -> None:
    """Raise BenchError unless the last score has a shadow of just these recipes."""
    consumer = KafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False)
    place = TopicPartition(scores.name, 0)
    consumer.assign([place])
    consumer.seek(place, consumer.end_offsets([place])[place] - 1)
    (record,) = consumer.poll(10_000)[place]
    consumer.close()
    shadow = msgspec.json.decode(record.value, type=Score).shadow
    if shadow.keys() != {*recipes}:
        raise BenchError(f"scored in the shadow: {', '.join(shadow) or 'nobody'}, not {', '.join(recipes) or 'nobody'}")


if __name__ == "__main__":
    sys.exit(serve("worker", __doc__ or "", StageWorker))
