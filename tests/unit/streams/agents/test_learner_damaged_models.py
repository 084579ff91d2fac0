"""What a learner goes on from: damaged models are passed over, and without a sound one it does not guess."""

import asyncio
import logging

import pytest

from streams.agents.learner import MOST_TRIED
from streams.models.snapshot import SnapshotRefused
from tests.unit.streams.agents.learning import (
    EXAMPLES,
    GIVEN,
    TOPICS,
    Kafka,
    announced,
    assert_as_if_never_interrupted,
    live,
)


def flipped(value: bytes, field_: bytes = b'"state":"') -> bytes:
    at = value.index(field_) + len(field_) + 70
    return value[:at] + (b"A" if value[at : at + 1] != b"A" else b"B") + value[at + 1 :]


DAMAGED = {
    "flipped model": (flipped(announced(18)), "its signature does not fit"),
    "flipped course": (flipped(announced(18), b'"course":"'), "its signature does not fit"),
    "changed offsets": (announced(18).replace(b'"0":18', b'"0":17'), "its signature does not fit"),
    "truncated": (announced(18)[:-40], "no announcement"),
    "null": (b"", "no announcement"),
    "not UTF-8": (b'{"model_id":"\xff"}', "no announcement"),
    "another key": (announced(18, key=b"x" * 32), "its signature does not fit"),
    "another feature set": (announced(18, feature_set="f" * 16), "made for feature set ffffffffffffffff"),
}


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_damaged_model_is_passed_over_by_name(damaged: str, caplog: pytest.LogCaptureFixture) -> None:
    """One line names its offset and why; the older model goes on, to the same weights."""
    value, why = DAMAGED[damaged]
    kafka = Kafka()
    kafka.topics[EXAMPLES.topic] = list(GIVEN)
    kafka.topics[TOPICS.models.name] = [announced(4), announced(9), value]
    caplog.set_level(logging.INFO)
    asyncio.run(live(kafka, 5))
    (line,) = {record.message for record in caplog.records if record.levelno >= logging.WARNING}
    assert line.startswith(f"{TOPICS.models.name}/0 at offset 2: ")
    assert why in line
    assert "models logistic@9, binned@9 go on learning" in caplog.text
    assert_as_if_never_interrupted(kafka)


@pytest.mark.parametrize("older", [0, 3, MOST_TRIED], ids=lambda older: f"{older} foreign")
def test_without_a_sound_model_it_does_not_guess(older: int) -> None:
    """Where none of ours is sound the key may be wrong: it ends, and announces nothing over the others' models."""
    kafka = Kafka()
    models = [*[announced(3, feature_set="f" * 16)] * older, announced(5, key=b"x" * 32)]
    kafka.topics[TOPICS.models.name] = list(models)
    with pytest.raises(SnapshotRefused, match="1 were refused: is HEADRACE_MODEL_KEY"):
        asyncio.run(live(kafka, 5))
    assert kafka.topics[TOPICS.models.name] == models


def test_models_of_other_features_alone_are_no_reason_to_stop() -> None:
    """A changed feature set learns anew from the earliest example."""
    kafka = Kafka()
    kafka.topics[EXAMPLES.topic] = list(GIVEN)
    kafka.topics[TOPICS.models.name] = [announced(3, feature_set="f" * 16)] * 2
    asyncio.run(live(kafka, 5))
    assert_as_if_never_interrupted(kafka)
