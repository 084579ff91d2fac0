"""Bins of values and crosses of bins, read off the values' bits, and the kernels that learn a weight for each.

A bin is a value's sign, its power of two and the first bits of its fraction: no range to declare, no quantiles to
learn, narrow where values are small, as amounts and counts ask for. A bin's weight is found by hashing.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

from streams.kernels import F64, F64_2D, FLOAT, I8, I64, INT, OUT_F64, OUT_F64_2D, VOID, kernel

F64s = NDArray[np.float64]
I64s = NDArray[np.int64]

ALONE, CROSSED = (2, 4), 0
"""How many bits of the fraction tell bins apart: 4 and 16 bins a power of two, and 1 in a cross."""

SURE = 30.0
"""The largest logit."""

FARTHEST = 1.0
"""By how much one example may move its own logit."""

SMOOTHED = 1e-4
"""How fast what a field usually says follows the examples, once there were many."""

SHIFTS = 52
"""How many bits of a float64 are its fraction."""
NOT_A_NUMBER = 0x7FF0_0000_0000_0001
SMALLEST = 0x3EB0_0000_0000_0000  # 2^-20: what is smaller counts as 0
WITHOUT_SIGN = 0x7FFF_FFFF_FFFF_FFFF
GOLDEN = np.uint64(0x9E37_79B9_7F4A_7C15)  # 2^64 / golden ratio, as in Fibonacci hashing
MISSING = -1


@dataclass(frozen=True)
class Fields:
    """What is binned: each field is one value or several, at one depth.

    `names` are the values by column; the field f looks at the columns members[ends[f - 1] : ends[f]] to depths[f];
    `salts` tell the fields' bins apart.
    """

    names: tuple[Any, ...]
    members: I64s
    ends: I64s
    depths: I64s
    salts: I64s

    @classmethod
    def over(cls, names: tuple[Any, ...], crosses: tuple[tuple[Any, ...], ...], alone: tuple[Any, ...] | None) -> Self:
        """Return the fields of `crosses`, then those of each value by itself, or of those in `alone` only."""
        known = tuple(dict.fromkeys([*names, *(name for cross in crosses for name in cross)]))
        fields = [(cross, CROSSED) for cross in crosses] + [
            ((name,), depth) for name in known for depth in ALONE if alone is None or name in alone
        ]
        places = {name: place for place, name in enumerate(known)}
        return cls(
            known,
            np.array([places[name] for members, _ in fields for name in members], np.int64),
            np.cumsum([len(members) for members, _ in fields], dtype=np.int64),
            np.array([depth for _, depth in fields], np.int64),
            np.array([_salt(members, depth) for members, depth in fields], np.int64),
        )

    def seen_by(self, names: tuple[str, ...]) -> I64s:
        """Return the members as columns of rows of `names`, -1 for what is not among them."""
        places = {name: place for place, name in enumerate(names)}
        return np.array([places.get(self.names[member], -1) for member in self.members.tolist()], np.int64)


def _salt(members: tuple[Any, ...], depth: int) -> int:
    return int.from_bytes(blake2b(repr((members, depth)).encode(), digest_size=8).digest(), "little", signed=True)


@dataclass(frozen=True)
class FrozenBins:
    """A model that learns no more, for rows of given columns."""

    members: I64s
    ends: I64s
    depths: I64s
    salts: I64s
    weights: F64s
    usual: F64s

    def score(self, rows: F64s) -> F64s:
        """Return the probability of True, float64[n]; a row's score does not depend on the batch it is in."""
        out = np.empty(len(rows))
        _score(np.ascontiguousarray(rows), self.members, self.ends, self.depths, self.salts, self.weights, out)
        return out

    def effects(self, rows: F64s) -> F64s:
        """Return by how much each value moves the log odds from where it usually is, float64[n, names].

        A cross's effect is shared by its values alike.
        """
        out = np.zeros(rows.shape)
        _effects(
            np.ascontiguousarray(rows), self.members, self.ends, self.depths, self.salts, self.weights, self.usual, out
        )
        return out


@njit(cache=True)
def _shift(slots: int) -> int:
    """Return by how much to shift a hash to the right for it to be below `slots`, a power of two."""
    bits = 64
    while slots > 1:
        slots >>= 1
        bits -= 1
    return bits


@njit(cache=True, inline="always")
def _slot(row: I64s, members: I64s, begin: int, end: int, depth: int, salt: int, shift: int) -> int:
    """Return where the weight of a field's bin is, MISSING where a value is missing; `row` has the values' bits."""
    hashed = np.uint64(salt)
    for at in range(begin, end):
        if members[at] < 0:
            return MISSING
        bits = row[members[at]]
        magnitude = bits & WITHOUT_SIGN
        if magnitude >= NOT_A_NUMBER:
            return MISSING
        bin_ = bits >> (SHIFTS - depth) if magnitude >= SMALLEST else 0
        hashed = (hashed ^ np.uint64(bin_)) * GOLDEN
    slot: int = np.int64(hashed >> np.uint64(shift))  # type: ignore[assignment]
    return slot


@njit(cache=True, inline="always")
def _probability(logit: float) -> float:
    probability: float = 1.0 / (1.0 + np.exp(-min(max(logit, -SURE), SURE)))
    return probability


@kernel(VOID(F64_2D, I64, I64, I64, I64, F64, OUT_F64))
def _score(rows: F64s, members: I64s, ends: I64s, depths: I64s, salts: I64s, weights: F64s, out: F64s) -> None:
    """Write each row's probability into `out`."""
    bits, shift = rows.view(np.int64), _shift(weights.size - 1)
    for i in range(rows.shape[0]):
        logit, begin = weights[-1], 0
        for field in range(ends.size):
            slot = _slot(bits[i], members, begin, ends[field], depths[field], salts[field], shift)
            begin = ends[field]
            if slot != MISSING:
                logit += weights[slot]
        out[i] = _probability(logit)


@kernel(VOID(F64_2D, I64, I64, I64, I64, F64, F64, OUT_F64_2D))
def _effects(
    rows: F64s, members: I64s, ends: I64s, depths: I64s, salts: I64s, weights: F64s, usual: F64s, out: F64s
) -> None:
    """Add each field's effect to its members' columns of `out`."""
    bits, shift = rows.view(np.int64), _shift(weights.size - 1)
    for i in range(rows.shape[0]):
        begin = 0
        for field in range(ends.size):
            end = ends[field]
            slot = _slot(bits[i], members, begin, end, depths[field], salts[field], shift)
            if slot != MISSING:
                share = (weights[slot] - usual[field]) / (end - begin)
                for at in range(begin, end):
                    out[i, members[at]] += share
            begin = end


@kernel(INT(F64_2D, I8, F64, I64, I64, I64, I64, FLOAT, INT, OUT_F64, OUT_F64, OUT_F64, OUT_F64))
def learn(
    rows: F64s,
    labels: NDArray[np.int8],
    importances: F64s,
    members: I64s,
    ends: I64s,
    depths: I64s,
    salts: I64s,
    floor: float,
    seen: int,
    weights: F64s,
    variances: F64s,
    usual: F64s,
    out: F64s,
) -> int:
    """Predict each row into `out`, then learn it; return how many were seen by now."""
    bits, intercept = rows.view(np.int64), weights.size - 1
    shift, slots = _shift(intercept), np.empty(ends.size + 1, np.int64)
    for i in range(rows.shape[0]):
        # 1. What the model says, and how unsure it is of that.
        begin, used = 0, 1
        slots[0] = intercept
        logit, variance = weights[intercept], variances[intercept]
        smoothing = max(SMOOTHED, 1.0 / (seen + 1))
        for field in range(ends.size):
            slot = _slot(bits[i], members, begin, ends[field], depths[field], salts[field], shift)
            begin = ends[field]
            if slot != MISSING:
                logit += weights[slot]
                variance += variances[slot]
                usual[field] += smoothing * (weights[slot] - usual[field])
                slots[used] = slot
                used += 1
        out[i] = _probability(logit)
        # 2. What the example tells: a share of it to each weight, the larger the less is known of the weight.
        information = importances[i] * out[i] * (1.0 - out[i])
        gain = 1.0 / (1.0 + information * variance)
        step = importances[i] * (labels[i] - out[i]) * gain
        step = min(max(step, -FARTHEST / variance), FARTHEST / variance)
        for at in range(used):
            slot = slots[at]
            known = variances[slot]
            weights[slot] += known * step
            variances[slot] = max(known - known * known * information * gain, floor)
        seen += 1
    return seen
