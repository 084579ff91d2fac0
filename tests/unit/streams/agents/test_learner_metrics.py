"""What a learner shows: its guards and champion, how well was decided, and the model that is out."""

import asyncio
import math
from typing import Literal

import msgspec
import numpy as np
import pytest

from schemas.codec import encode
from schemas.events import AliasChange
from streams.agents.learner import LearnerAgent
from streams.metrics import Metrics
from streams.models.guard import FREEZE
from tests.unit.streams.agents.learning import NAMES, NOW, Kafka, agent, example, given, models, told


def test_guards_and_champion_are_seen() -> None:
    """A trip is counted and named, for how long learning stands still is shown, and who is champion."""
    metrics = Metrics("learner")
    learner = agent(Kafka(), metrics=metrics)
    learner.lessons.learners["binned"].guard.trip()
    given(learner, encode(example(0)))
    learner.show()
    value = metrics.registry.get_sample_value
    for recipe, trips, frozen, champion in (("logistic", 0, 0, 1), ("binned", 1, FREEZE - 1, 0)):
        assert value("headrace_guard_trips_total", {"recipe": recipe}) == trips
        assert value("headrace_learning_frozen", {"recipe": recipe}) == frozen
        assert value("headrace_champion", {"recipe": recipe}) == champion
    assert value("headrace_progressive", {"recipe": "logistic", "measure": "log_loss"}) == pytest.approx(
        -np.log(0.1), rel=1e-6
    )


def test_how_well_it_was_decided_is_seen() -> None:
    """Live, and of each recipe: of four payments the two of 1,000 would have been stopped at the scores they were given
    by the champion, one of which was a fraud, as was another; at the challenger's none."""
    metrics = Metrics("learner")
    learner = agent(Kafka(), metrics=metrics)

    def paid(number: int, amount: float, label: Literal[0, 1]) -> bytes:
        one = example(number)
        quiet = dict.fromkeys(NAMES, 0.0) | {"amount": amount}
        return encode(msgspec.structs.replace(one, label=label, features=quiet, shadow={"binned": 0.001}))

    given(learner, paid(0, 1000.0, 1), paid(1, 1000.0, 0), paid(2, 1.0, 1), paid(3, 1.0, 0))
    learner.show()
    for measure, champion, challenger in (("precision", 0.5, math.nan), ("recall", 0.5, 0.0), ("f1", 0.5, 0.0)):
        for recipe, value in (("logistic", champion), ("binned", challenger)):
            labels = {"recipe": recipe, "measure": measure}
            shown = metrics.registry.get_sample_value("headrace_progressive", labels)
            assert shown == pytest.approx(value, nan_ok=True), labels


def test_the_model_that_is_shown_is_the_one_that_is_out() -> None:
    """While the champion is on trial that is its last sound snapshot, with its own age, and after a crash it still is;
    another recipe's, where that is champion."""
    kafka, metrics, now = Kafka(), Metrics("learner"), [NOW / 1000]
    learner = agent(kafka, metrics=metrics, clock=lambda: now[0])

    def shown(learner: LearnerAgent) -> tuple[list[str], float | None]:
        learner.show()
        samples = [one for family in metrics.model_created.collect() for one in family.samples]
        age = metrics.registry.get_sample_value("headrace_model_age_seconds")
        return [one.labels["model_id"] for one in samples], age

    assert shown(learner) == ([], 0.0)
    given(learner, encode(example(0)), encode(example(1)))
    assert asyncio.run(learner.announce())
    guard = learner.lessons.learners["logistic"].guard
    guard.trip()
    guard.frozen = 0
    now[0] += 10
    given(learner, encode(example(0)), encode(example(1)), encode(example(2)))
    assert asyncio.run(learner.announce())
    assert models(kafka)[-1] == (["logistic@2", "binned@3"], True)
    now[0] += 5
    assert shown(learner) == (["logistic@2"], 15.0)
    resumed = agent(kafka, metrics=metrics, clock=lambda: now[0])
    asyncio.run(resumed.take_up())
    assert resumed.lessons.learners["logistic"].guard.on_trial
    assert shown(resumed) == (["logistic@2"], 15.0)
    told(resumed, encode(AliasChange("champion", "binned", "operator", "go on with this", NOW)))
    assert shown(resumed) == (["binned@3"], 5.0)
