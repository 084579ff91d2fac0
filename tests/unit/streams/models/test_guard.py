"""What has gone wrong is taken back: a model that is no number, weights without bounds, a burst of wrong labels."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from streams.models import guard as guarding
from streams.models import learner as learning
from streams.models.guard import BLOCK, FREEZE, GOOD_EVERY, LONGEST_FREEZE, USUAL, Guard, bounded
from streams.models.learner import HEAVY_TIMES, Learner
from streams.models.recipes import RECIPES, Recipe
from streams.models.storage import Arrays

NAMES = ("amount", "count")


class Brittle:
    """Says the mean label; a `count` of 99 turns its only weight into what is told by `amount`."""

    broken = math.nan

    def __init__(self) -> None:
        self.mean, self.seen = np.array([0.5]), np.array([0.0])

    def predict_proba_one(self, x: dict[str, float]) -> dict[bool, float]:
        mean = float(self.mean[0])
        return {False: 1 - mean, True: mean}

    def learn_one(self, x: dict[str, float], y: bool, w: float = 1.0) -> None:
        self.seen += 1
        self.mean += (y - self.mean) / self.seen
        if x["count"] == 99:
            self.mean[0] = x["amount"] or math.nan

    def arrays(self) -> Arrays:
        return {"mean": self.mean, "seen": self.seen}

    def take_arrays(self, arrays: Arrays) -> None:
        self.mean, self.seen = arrays["mean"].astype(float), arrays["seen"].astype(float)


@pytest.fixture
def brittle() -> Iterator[Learner]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(RECIPES, "brittle", Recipe("brittle", lambda names: Brittle()))
        yield Learner("brittle", NAMES)


def teach(learner: Learner, rows: NDArray[np.float64], labels: NDArray[np.int8]) -> int:
    return learner.learn_rows(rows, labels, np.ones(len(rows)))


def drawn(count: int, seed: int = 1) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Events of which 5 % are frauds, more of them where the amount is high."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, 2))
    chance = 1 / (1 + np.exp(4.5 - 2.0 * rows[:, 0]))
    return rows, (rng.random(count) < chance).astype(np.int8)


BAD = {"no number": 0.0, "without bounds": 1e13}


@pytest.mark.parametrize("bad", BAD)
def test_what_will_not_heal_is_taken_back(brittle: Learner, bad: str) -> None:
    """The model is that of an earlier time, learns nothing from so many examples, and then goes on."""
    rows, labels = drawn(3 * GOOD_EVERY)
    teach(brittle, rows, labels)
    teach(brittle, np.array([[BAD[bad], 99.0]]), np.array([0], np.int8))
    teach(brittle, rows[:BLOCK], labels[:BLOCK])
    assert brittle.guard.trips == 1
    assert brittle.model.arrays()["seen"][0] == 2 * GOOD_EVERY  # type: ignore[attr-defined]
    assert bounded(brittle.model)
    left = brittle.guard.frozen
    assert FREEZE - BLOCK <= left <= FREEZE
    before = brittle.model.arrays()["mean"].tobytes()  # type: ignore[attr-defined]
    assert teach(brittle, rows[:left], labels[:left]) == 0
    assert brittle.model.arrays()["mean"].tobytes() == before  # type: ignore[attr-defined]
    assert teach(brittle, rows[:100], labels[:100]) == 100
    assert brittle.examples_learnt + brittle.examples_skipped == 3 * GOOD_EVERY + 1 + BLOCK + left + 100


@pytest.mark.parametrize("cut", [1, 2, 7])
def test_a_model_that_fails_is_taken_back(brittle: Learner, monkeypatch: pytest.MonkeyPatch, cut: int) -> None:
    """An overflow in the midst of learning is as bad as what is no number, wherever a batch ends."""
    learn = Brittle.learn_one

    def overflows(self: Brittle, x: dict[str, float], y: bool, w: float = 1.0) -> None:
        learn(self, x, y, w)
        if x["amount"] == 7:
            raise OverflowError

    monkeypatch.setattr(Brittle, "learn_one", overflows)
    rows, labels = drawn(10)
    rows[4, 0] = 7.0
    for part in (slice(at, at + cut) for at in range(0, 10, cut)):
        teach(brittle, rows[part], labels[part])
    assert (brittle.examples_learnt, brittle.examples_skipped, brittle.guard.trips) == (5, 5, 1)


def test_without_a_good_state_it_begins_anew(brittle: Learner) -> None:
    """Before there is anything to go back to it goes back to the beginning."""
    teach(brittle, np.array([[0.0, 99.0], [1.0, 1.0]]), np.array([0, 1], np.int8))
    assert brittle.guard.trips == 1
    assert brittle.model.arrays()["seen"][0] == 0  # type: ignore[attr-defined]


def test_each_further_trip_freezes_longer(brittle: Learner) -> None:
    """Twice as long, up to a bound."""
    frozen = []
    for _ in range(10):
        teach(brittle, np.array([[0.0, 99.0], [1.0, 1.0]]), np.array([0, 1], np.int8))
        frozen.append(brittle.guard.frozen)
        teach(brittle, np.zeros((frozen[-1], 2)), np.zeros(frozen[-1], np.int8))
    assert frozen == [min(FREEZE * 2**number, LONGEST_FREEZE) for number in range(10)]
    assert brittle.guard.trips == 10


def test_a_heavy_model_is_copied_seldom_and_not_asked_again(brittle: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its state is kept eight times as seldom once it has grown, and loaded only where it is gone back to."""
    loaded: list[bytes] = []
    unpack = learning.unpack
    monkeypatch.setattr(learning, "unpack", lambda *given: loaded.append(given[2]) or unpack(*given))
    grown = HEAVY_TIMES * GOOD_EVERY
    rows, labels = drawn(grown)
    brittle.heavy = True
    teach(brittle, rows, labels)
    kept = brittle.guard.candidate
    teach(brittle, rows[:-1], labels[:-1])
    assert brittle.guard.candidate is kept
    teach(brittle, rows[-1:], labels[-1:])
    assert brittle.guard.candidate is not kept
    assert not loaded
    teach(brittle, np.array([[0.0, 99.0], [1.0, 1.0]]), np.array([0, 1], np.int8))
    assert len(loaded) == 1
    assert brittle.model.arrays()["seen"][0] == grown  # type: ignore[attr-defined]


@pytest.mark.parametrize("learnt", [3 * GOOD_EVERY, 5 * GOOD_EVERY + BLOCK, (HEAVY_TIMES + 2) * GOOD_EVERY])
def test_a_heavy_model_loses_little(brittle: Learner, learnt: int) -> None:
    """Early or late, what has been found sound for as long as a burst may go unnoticed is not given up."""
    rows, labels = drawn(learnt)
    brittle.heavy = True
    teach(brittle, rows, labels)
    teach(brittle, np.array([[0.0, 99.0], [1.0, 1.0]]), np.array([0, 1], np.int8))
    assert brittle.guard.trips == 1
    left = brittle.model.arrays()["seen"][0]  # type: ignore[attr-defined]
    assert learnt - 2 * GOOD_EVERY <= left <= learnt - GOOD_EVERY


def loss(learner: Learner) -> float:
    """The mean log loss on events that nobody has learnt from."""
    rows, labels = drawn(2000, seed=9)
    scores = np.array(
        [learner.model.predict_proba_one(dict(zip(NAMES, row, strict=True)))[True] for row in rows.tolist()]
    )
    return float(-np.log(np.where(labels == 1, scores, 1 - scores)).mean())


@pytest.mark.parametrize("heavy", [False, True], ids=["light", "heavy"])
def test_a_burst_of_wrong_labels_is_taken_back(monkeypatch: pytest.MonkeyPatch, heavy: bool) -> None:
    """Two fifths of a few blocks' labels turned round: the guard notices within a block, and what is served afterwards
    is as good as before; without the guard it is not."""
    rows, labels = drawn(60 * BLOCK)
    wrong = np.random.default_rng(3).random(4 * BLOCK) < 0.4
    burst = labels[: 4 * BLOCK] ^ wrong.astype(np.int8)

    def after(learner: Learner) -> tuple[float, float]:
        teach(learner, rows, labels)
        before = loss(learner)
        teach(learner, rows[: 4 * BLOCK], burst)
        return before, loss(learner)

    guarded = Learner("logistic", NAMES)
    guarded.heavy = heavy
    before, afterwards = after(guarded)
    assert guarded.guard.trips == 1
    assert guarded.examples_skipped == 3 * BLOCK  # noticed at the end of the first block
    assert afterwards < 1.05 * before
    monkeypatch.setattr(guarding, "JUMP", math.inf)
    before, afterwards = after(Learner("logistic", NAMES))
    assert afterwards > 1.15 * before


def test_a_changed_world_is_believed_in_the_end() -> None:
    """Labels that stay turned round are what is to be learnt: after three freezes it does."""
    rows, labels = drawn(60 * BLOCK)
    learner = Learner("logistic", NAMES)
    teach(learner, rows, labels)
    teach(learner, rows, 1 - labels)
    assert learner.guard.trips == 3
    assert learner.examples_skipped == 7 * FREEZE
    assert learner.guard.frozen == 0


@pytest.mark.parametrize("seed", range(3))
def test_chance_does_not_trip_it(seed: int) -> None:
    """60,000 examples of a world that stays as it is, frauds rare and in clusters: nothing is taken back."""
    rng = np.random.default_rng(seed)
    rows, labels = drawn(60_000, seed)
    clustered = np.repeat(rng.random(600) < 0.5, 100)
    learner = Learner("logistic", NAMES)
    assert teach(learner, rows, labels & clustered) == 60_000
    assert learner.guard.trips == 0


def test_what_is_usual_takes_time() -> None:
    """The first blocks are never a jump: an unlearnt model has no past to be compared with."""
    guard, model = Guard(), RECIPES["logistic"].make(NAMES)
    for _ in range(USUAL):
        guard.add(np.full(BLOCK, 0.01), np.zeros(BLOCK, np.int8))
        assert guard.close(model) is None
    guard.add(np.full(BLOCK, 0.9), np.zeros(BLOCK, np.int8))
    assert guard.close(model) is guarding.Trip.LOSS
