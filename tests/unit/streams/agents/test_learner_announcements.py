"""What a learner announces, to go on from or for scorers alone: nothing unsound, and nothing older than is out."""

import asyncio
from collections.abc import Sequence

from schemas.codec import encode
from streams.agents.learner import RESUMABLE_EVERY, LearnerAgent
from streams.models.lessons import Lessons
from streams.runtime.batches import Batch
from streams.runtime.records import Records
from tests.unit.streams.agents.learning import (
    EXAMPLES,
    FEATURES,
    FRAUD,
    KEY,
    NAMES,
    NOW,
    TOPICS,
    Kafka,
    agent,
    example,
    given,
    models,
    newest,
)
from tests.weights import weights


def test_an_unsound_model_is_not_announced() -> None:
    """Until its guard has taken it back the one before it stays out, and the other recipes' newest go on."""
    kafka = Kafka()
    learner = agent(kafka)
    given(learner, encode(example(0)))
    learner.lessons.learners["logistic"].model["LogisticRegression"].intercept = float("nan")  # type: ignore[index]
    assert asyncio.run(learner.announce())
    given(learner, encode(example(0)), encode(example(1)))
    assert learner.lessons.learners["logistic"].guard.trips == 1
    assert asyncio.run(learner.announce())
    learner.lessons.learners["logistic"].guard.frozen = 0
    given(learner, encode(example(0)), encode(example(1)), encode(example(2)))
    assert learner.lessons.learners["logistic"].guard.on_trial
    assert asyncio.run(learner.announce())
    assert [names for names, _ in models(kafka)] == [
        ["binned@1"], ["logistic@2", "binned@2"], ["logistic@2", "binned@3"],
    ]  # fmt: skip


def read(learner: LearnerAgent, number: int) -> None:
    value = encode(example(number))
    records = Records.of([None], [value], [number], [NOW])
    asyncio.run(learner.on_batch(Batch(EXAMPLES.topic, 0, records, number + 1, 1)))


async def several_lives(kafka: Kafka, lives: Sequence[tuple[int, str]]) -> None:
    """One process after the other: each reads so many examples, and announces after each for learners (l), for
    scorers (s), or not at all."""
    for upto, announcements in lives:
        learner = agent(kafka)
        await learner.take_up()
        at = max(0, (await learner.positions({EXAMPLES}))[EXAMPLES])
        for offset, announced_ in zip(range(at, upto), announcements, strict=True):
            value = encode(example(offset))
            await learner.on_batch(
                Batch(EXAMPLES.topic, 0, Records.of([None], [value], [offset], [NOW]), offset + 1, 1)
            )
            if announced_ in "ls":
                await learner.announce(resumable=announced_ == "l")


def test_what_is_for_scorers_is_never_gone_on_from_and_never_gone_back_behind() -> None:
    """Killed, it goes on from the last announcement that holds all; scorers hear nothing until it is further than they
    are."""
    kafka = Kafka()
    asyncio.run(several_lives(kafka, [(4, "slss"), (6, "ssss"), (6, "llll")]))
    assert models(kafka) == [
        (["logistic@1", "binned@1"], True),  # the first is one to go on from
        (["logistic@2", "binned@2"], True),
        (["logistic@3", "binned@3"], False),
        (["logistic@4", "binned@4"], False),
        # The second began again at 2 and told nothing of 3 and 4.
        (["logistic@5", "binned@5"], False),
        (["logistic@6", "binned@6"], False),
        (["logistic@6", "binned@6"], True),
    ]
    lessons = Lessons(FRAUD.recipes, NAMES, FEATURES)
    for number in range(6):
        lessons.take(example(number))
    resumed = Lessons.resume(newest(kafka), FRAUD.recipes, NAMES, FEATURES, KEY)
    for recipe, learner in lessons.learners.items():
        assert weights(resumed.learners[recipe].model) == weights(learner.model)


def test_a_round_that_had_nothing_to_go_on_from_is_made_up_for() -> None:
    """One announcement in 15 rounds holds all; where there was nothing to say in its turn, the next one does."""
    kafka = Kafka()
    learner = agent(kafka)
    turns = RESUMABLE_EVERY

    def rounds(count: int, news: bool) -> list[bool]:
        before = len(models(kafka))
        for number in range(before, before + count):
            if news:
                read(learner, number)
            assert asyncio.run(learner.announce_in_turn()) is news
        return [whole for _, whole in models(kafka)[before:]]

    assert rounds(turns + 1, news=True) == [True, *[False] * (turns - 1), True]
    assert rounds(turns + 3, news=False) == []
    assert rounds(turns + 1, news=True) == [True, *[False] * (turns - 1), True]
    # Examples that scorers know of already are news for who goes on from there.
    assert rounds(turns - 1, news=True) == [False] * (turns - 1)
    assert asyncio.run(learner.announce_in_turn())
    assert models(kafka)[-1][1]


def test_scorers_announcements_of_another_feature_set_are_passed_over() -> None:
    """As those to go on from are: learning begins anew, and nothing is held back."""
    other = Lessons(FRAUD.recipes, NAMES, "f" * 16)
    other.offsets[0] = 900
    kafka = Kafka()
    kafka.topics[TOPICS.models.name] = [encode(other.announce(NOW, KEY, resumable=whole)) for whole in (True, False)]
    asyncio.run(several_lives(kafka, [(1, "s")]))
    assert models(kafka)[2:] == [(["logistic@1", "binned@1"], True)]


def test_scorers_announcements_of_other_recipes_hold_nothing_back() -> None:
    """Scorers have no use for them; learning begins anew, and is told from the first."""
    other = Lessons(("tree",), NAMES, FEATURES)
    other.offsets[0] = 900
    kafka = Kafka()
    kafka.topics[TOPICS.models.name] = [encode(other.announce(NOW, KEY, resumable=whole)) for whole in (True, False)]
    asyncio.run(several_lives(kafka, [(1, "s")]))
    assert models(kafka)[2:] == [(["logistic@1", "binned@1"], True)]


def test_after_a_crash_no_older_model_goes_out_again() -> None:
    """One that must not be announced now stays what scorers were told last, not what the learner goes on from."""
    kafka = Kafka()
    asyncio.run(several_lives(kafka, [(3, "lss")]))
    learner = agent(kafka)
    asyncio.run(learner.take_up())
    given(learner, *(encode(example(number)) for number in range(4)))
    learner.lessons.learners["logistic"].model["LogisticRegression"].intercept = float("nan")  # type: ignore[index]
    assert asyncio.run(learner.announce())
    assert models(kafka)[-1][0] == ["logistic@3", "binned@4"]
