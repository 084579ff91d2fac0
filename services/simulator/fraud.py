"""Customers with spending habits, terminals near them, and three kinds of fraud; seeded, no clock.

The kinds follow the simulator of *Reproducible Machine Learning for Credit Card Fraud Detection*, chapter 3:
amounts out of all proportion, compromised terminals, and stolen cards. Times are arguments, in epoch ms.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.events import Transaction

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FAVOURITES = 8


@dataclass(frozen=True)
class Frauds:
    """How much fraud there is; the defaults make about one payment in forty fraudulent."""

    outsized: float = 0.004
    """Share of payments that are out of all proportion to the customer's usual."""
    outsized_by: tuple[float, float] = (5.0, 15.0)
    """How many times the usual they are, from and to."""
    compromised: float = 0.015
    """Share of terminals that are compromised at any time."""
    compromised_ms: int = 120_000
    at_compromised: float = 0.6
    """Share of the payments at a compromised terminal that are fraudulent."""
    stolen: float = 0.001
    """Share of cards that are stolen at any time."""
    stolen_ms: int = 30_000
    stolen_by: tuple[float, float] = (2.0, 6.0)
    """How many times the usual the payments with a stolen card are, from and to."""
    burst: float = 12.0
    """How much busier a stolen card is."""


SMALL = Frauds(outsized=0.01, outsized_by=(0.01, 0.08), compromised=0.0, stolen_by=(0.01, 0.15))
"""As much fraud in another pattern: cards are tried out with next to nothing, and no terminal is compromised."""


@dataclass(frozen=True)
class Block:
    """Payments in time order: times (epoch ms), customers and terminals by number, amounts, labels (1: fraud).

    `first` is the number of the first payment of the block in its simulation.
    """

    first: int
    times: Ints
    customers: Ints
    terminals: Ints
    amounts: Floats
    labels: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.times)

    def structs(self, prefix: str) -> list[Transaction]:
        """Return the payments as events whose ids are `prefix` and the payment's number."""
        rows = zip(
            range(self.first, self.first + len(self)),
            self.times.tolist(),
            self.customers.tolist(),
            self.terminals.tolist(),
            self.amounts.tolist(),
            strict=True,
        )
        return [
            Transaction(f"{prefix}{number}", moment, f"c{customer}", f"t{terminal}", amount)
            for number, moment, customer, terminal, amount in rows
        ]


class Simulation:
    """An endless run of payments; the same seed and the same blocks give the same payments.

    `rate` is payments a second over all customers. A customer pays at one of the terminals nearest to them, an
    amount around their own mean, and some customers pay far more often than others. From `drift` ms after the
    start on, the fraud is of the pattern `SMALL`.
    """

    def __init__(
        self,
        seed: int,
        customers: int,
        terminals: int,
        rate: float,
        frauds: Frauds | None = None,
        drift: float = math.inf,
    ) -> None:
        self._random = random = np.random.default_rng(seed)
        self._rate, self._frauds, self._drift = rate, frauds or Frauds(), drift
        self._means = random.lognormal(3.5, 0.6, customers)
        self._spreads = self._means * random.uniform(0.2, 0.5, customers)
        self._busyness = random.gamma(2.0, 1.0, customers)
        self._favourites = _nearest(random, customers, terminals)
        # Ends of episodes, in ms from the start of the run.
        frauds = self._frauds
        self._compromised_until = _under_way(random, terminals, frauds.compromised, frauds.compromised_ms)
        self._stolen_until = _under_way(random, customers, frauds.stolen, frauds.stolen_ms)
        self._origin: int | None = None
        self._terminals = terminals
        self._made = 0

    def block(self, begin: int, end: int) -> Block:
        """Return the payments of the time [begin, end), which follows the block before."""
        random = self._random
        self._origin = begin if self._origin is None else self._origin
        now, then = begin - self._origin, end - self._origin
        if now >= self._drift:
            self._frauds = SMALL
        frauds = self._frauds
        _renew(random, self._compromised_until, frauds.compromised, frauds.compromised_ms, now, then)
        _renew(random, self._stolen_until, frauds.stolen, frauds.stolen_ms, now, then)
        count = int(random.poisson(self._rate * (end - begin) / 1000))
        times = np.sort(random.integers(now, then, count))
        customers = self._payers(count, now)
        terminals = self._favourites[customers, random.integers(0, self._favourites.shape[1], count)]
        amounts = np.abs(random.normal(self._means[customers], self._spreads[customers]))

        # A stolen card pays its burst anywhere, and much; the owner's own payments go on between.
        honest = 1 / frauds.burst
        stolen = (self._stolen_until[customers] > times) & (random.random(count) > honest)
        terminals = np.where(stolen, random.integers(0, self._terminals, count), terminals)
        amounts = np.where(stolen, amounts * random.uniform(*frauds.stolen_by, count), amounts)
        outsized = random.random(count) < frauds.outsized
        amounts = np.where(outsized, amounts * random.uniform(*frauds.outsized_by, count), amounts)
        # At a compromised terminal only the terminal gives the fraud away.
        compromised = self._compromised_until[terminals] > times
        compromised &= random.random(count) < frauds.at_compromised

        labels = (stolen | outsized | compromised).astype(np.int8)
        first, self._made = self._made, self._made + count
        return Block(first, times + self._origin, customers, terminals, np.round(amounts + 0.01, 2), labels)

    def _payers(self, count: int, now: int) -> Ints:
        busyness = np.where(self._stolen_until > now, self._busyness * self._frauds.burst, self._busyness)
        upto = np.cumsum(busyness)
        places = np.searchsorted(upto, self._random.random(count) * upto[-1], side="right")
        clipped: Ints = np.minimum(places, len(upto) - 1)
        return clipped


def _under_way(random: np.random.Generator, count: int, share: float, length: int) -> Floats:
    """Return when the episode of each of `count` entities ends; `share` of them are in one at the start."""
    inside = random.random(count) < share
    return np.where(inside, random.uniform(0, length, count), 0.0)


def _renew(random: np.random.Generator, until: Floats, share: float, length: int, begin: int, end: int) -> None:
    """Let new episodes of `length` ms begin, so that on average `share` of the entities are in one."""
    expected = share * len(until) * (end - begin) / length
    starting = random.integers(0, len(until), random.poisson(expected))
    until[starting] = random.uniform(begin, end, len(starting)) + length


def _nearest(random: np.random.Generator, customers: int, terminals: int) -> Ints:
    """Return the terminals nearest to each customer, all of them somewhere in a square: int64[customers, few]."""
    count = min(FAVOURITES, terminals)
    homes, places = random.random((customers, 2)), random.random((terminals, 2))
    chosen = []
    for some in np.array_split(homes, max(1, customers * terminals // 4_000_000)):
        distances = ((some[:, None, :] - places[None, :, :]) ** 2).sum(axis=2)
        chosen.append(np.argpartition(distances, count - 1, axis=1)[:, :count])
    return np.concatenate(chosen)
