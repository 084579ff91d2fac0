"""When what a learner has learnt must not be trusted, and what it goes back to.

After every `BLOCK` examples the guard looks at the model, at what it said of them before it learnt them, and at what
the last good state says of them:

- a score that is no number, or a weight that is none or beyond `BOUND`, is an error that will not heal by itself;
- a mean log loss of the good state that is `JUMP` standard deviations above, and `TIMES` times, that of the blocks
  before is a burst of wrong labels sooner than a changed world. (A model that is quick has learnt half of the burst
  within the block, and says so.)

A heavy model is not asked a second time (its recipe says so): of it, what it said itself counts, and its state, whose
copy takes long, is kept eight times as seldom once it has grown.

Then the learner goes back to a `good` state, the newest that is more than `GOOD_EVERY` examples old, and learns nothing
from the next `FREEZE` examples; twice as many at each further trip. A loss that is still as high after `PATIENCE` trips
is believed: the world has changed. All of it goes by the count of examples, so that it is a function of them.
"""

from enum import StrEnum

import msgspec
import numpy as np
from numpy.typing import NDArray
from river import compose, linear_model

from streams.models.recipes import Model
from streams.models.storage import HasArrays

BLOCK = 256
GOOD_EVERY = 4 * BLOCK
FREEZE = 4 * BLOCK
LONGEST_FREEZE = 256 * BLOCK
USUAL = 16
"""Blocks that make a usual loss; before them nothing is a jump."""
MEMORY = 64
"""Blocks over which the usual loss is averaged."""
JUMP, TIMES = 10.0, 4.0
PATIENCE = 3
FORGIVEN = 256
"""Blocks without a trip after which the next is a first one again."""
BOUND = 1e12
SUREST = 1e-3
"""A score counts as at least so far from 0 and 1: one example costs at most 6.9 nats."""


class Trip(StrEnum):
    """Why learning was stopped."""

    NOT_FINITE = "not_finite"
    UNBOUNDED = "unbounded"
    LOSS = "loss"


class Guard(msgspec.Struct):
    """Where the guard of one learner stands; all plain values, `good` and `candidate` being states as bytes.

    `frozen` is how many examples are still to be left out, `trips` how often it has tripped so far and `recent` how
    often in a row; `given` has the probabilities that the block's labels were given.
    """

    frozen: int = 0
    trips: int = 0
    recent: int = 0
    quiet: int = 0
    since_good: int = 0
    blocks: int = 0
    mean: float = 0.0
    variance: float = 0.0
    given: list[float] = []
    good: bytes = b""
    candidate: bytes = b""

    @property
    def room(self) -> int:
        """How many examples the block still takes."""
        return BLOCK - len(self.given)

    @property
    def on_trial(self) -> bool:
        """Whether learning has begun again after a trip and no block has shown yet that it may."""
        return self.recent > 0 and self.quiet == 0 and self.frozen == 0

    def thaw(self, examples: int) -> int:
        """Leave out as many of the next `examples` as are to be; return how many."""
        left_out = min(self.frozen, examples)
        self.frozen -= left_out
        return left_out

    def add(self, said: NDArray[np.float64], labels: NDArray[np.int8]) -> None:
        """Take what is said, float64[n], of examples that turned out to be int8[n]; n is at most `room`."""
        self.given += np.where(labels == 1, said, 1.0 - said).tolist()

    def close(self, model: Model) -> Trip | None:
        """Judge the block, which is full, and the model after it."""
        given = np.clip(self.given, SUREST, 1.0)
        self.given = []
        self.since_good += BLOCK
        if not bounded(model):
            return Trip.UNBOUNDED
        loss = float(-np.log(given).mean())
        if self._jumped(loss):
            if self.recent < PATIENCE:
                return Trip.LOSS
            self.blocks = 0  # what was usual is so no more
        self._learn_usual(loss)
        self.quiet += 1
        if self.quiet >= FORGIVEN:
            self.recent = 0
        return None

    def good_is_due(self, times: int = 1) -> bool:
        """Say whether it is time to `keep` the state, which is kept so many `times` as seldom."""
        return self.since_good >= GOOD_EVERY * times

    def keep(self, state: bytes) -> None:
        """Keep a state: what was kept before it, and has not been found bad since, is good."""
        # A burst that is noticed within GOOD_EVERY examples is in neither `good` nor what comes of it.
        self.good, self.candidate, self.since_good = self.candidate or state, state, 0

    def trip(self) -> bytes:
        """Freeze; return the state to go back to, empty for an unlearnt one."""
        self.frozen = min(FREEZE << self.recent, LONGEST_FREEZE)
        self.trips += 1
        self.recent += 1
        if self.since_good > GOOD_EVERY:  # kept so seldom that the burst is not in it either
            self.good = self.candidate
        self.quiet = self.since_good = 0
        self.given = []
        self.candidate = self.good
        return self.good

    def _jumped(self, loss: float) -> bool:
        if self.blocks < USUAL:
            return False
        return loss > TIMES * self.mean and loss > self.mean + JUMP * self.variance**0.5

    def _learn_usual(self, loss: float) -> None:
        self.blocks += 1
        step = 1.0 / min(self.blocks, MEMORY)
        surprise = loss - self.mean
        self.mean += step * surprise
        self.variance = (1.0 - step) * (self.variance + step * surprise * surprise)


def bounded(model: Model) -> bool:
    """Say whether every weight that can be seen is a number within `BOUND`."""
    return all(bool((np.abs(weights) <= BOUND).all()) for weights in _weights(model))


def _weights(model: Model) -> list[NDArray[np.float64]]:
    if isinstance(model, HasArrays):
        arrays = model.arrays().values()
        return [array.astype(np.float64) for array in arrays if np.issubdtype(array.dtype, np.floating)]
    last = model[-1] if isinstance(model, compose.Pipeline) else model
    if isinstance(last, linear_model.LogisticRegression):
        return [np.array([last.intercept, *last.weights.values()])]
    return []
