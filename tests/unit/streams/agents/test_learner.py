"""The learner at work on topics that are lists: killed at any step, it learns each example once."""

import asyncio

import msgspec
import pytest

from schemas.codec import encode
from streams.metrics import Metrics
from streams.runtime.batches import Batch
from streams.runtime.records import Records
from tests.unit.streams.agents.learning import (
    EXAMPLES,
    FRAUD,
    GIVEN,
    NAMES,
    NOW,
    TOPICS,
    Kafka,
    Killed,
    agent,
    assert_as_if_never_interrupted,
    example,
    given,
    live,
)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_killed_at_every_step_it_learns_the_same(batch_size: int, after: bool) -> None:
    """Killed before or after each effect on Kafka in turn, and its replacement one step further on: the last
    announced weights are those of a learner that took each example once, bit for bit."""
    steps = 0
    while True:
        kafka = Kafka(after=after)
        kafka.topics[EXAMPLES.topic] = list(GIVEN)
        killed = False
        for steps_left in (steps, steps + 1, 1 << 60):
            kafka.steps_left = steps_left
            try:
                asyncio.run(live(kafka, batch_size))
            except Killed:
                killed = True
        assert_as_if_never_interrupted(kafka)
        assert set(kafka.topics[TOPICS.dlq.name]) == {b"poison"}
        if not killed:
            break
        steps += 1
    assert steps > 5  # it was killed at all of them


def test_duplicates_are_counted() -> None:
    """What comes twice is seen in the metrics, and is neither learnt nor refused."""
    kafka, metrics = Kafka(), Metrics("learner")
    values = list(map(encode, [example(0), example(1), example(0)]))
    records = Records.of([None] * 3, values, range(3), [NOW] * 3)
    asyncio.run(agent(kafka, metrics=metrics).on_batch(Batch(EXAMPLES.topic, 0, records, 3, 1)))
    value = metrics.registry.get_sample_value
    assert value("headrace_duplicates_total", {"stage": "learner"}) == 1
    assert value("headrace_examples_learnt_total") == 2


def test_an_example_from_nowhere_is_poison() -> None:
    """A label partition that there is not is no place to keep a window for."""
    kafka, metrics = Kafka(), Metrics("learner")
    nowhere = encode(msgspec.structs.replace(example(0), label_partition=TOPICS.labels.partitions))
    values = [nowhere, encode(example(1))]
    learner = agent(kafka, metrics=metrics)
    asyncio.run(learner.on_batch(Batch(EXAMPLES.topic, 0, Records.of([None] * 2, values, range(2), [NOW] * 2), 2, 1)))
    assert kafka.topics[TOPICS.dlq.name] == [nowhere]
    assert [one.examples_learnt for one in learner.lessons.learners.values()] == [1] * len(FRAUD.recipes)


def test_unfit_values_are_put_aside_with_the_reason() -> None:
    """What no model may learn from is a dead letter, counted, and nothing of it is learnt."""
    kafka, metrics = Kafka(), Metrics("learner")
    learner = agent(kafka, metrics=metrics)
    huge = encode(msgspec.structs.replace(example(1), features=dict.fromkeys(NAMES, 1e200)))
    heavy = encode(msgspec.structs.replace(example(2), weight=1e9))
    short = encode(msgspec.structs.replace(example(3), features={}))
    given(learner, encode(example(0)), huge, heavy, b"poison", short, encode(example(4)))
    assert kafka.topics[TOPICS.dlq.name] == [huge, heavy, b"poison", short]
    assert metrics.registry.get_sample_value("headrace_dlq_total", {"reason": "unfit_value"}) == 3
    assert [one.examples_learnt for one in learner.lessons.learners.values()] == [2, 2]
