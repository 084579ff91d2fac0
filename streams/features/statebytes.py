"""The bytes of an entity's state, as the checkpoint keeps them (Numba).

    fingerprint u64 · checksum u64 · per ring: size u32, width u8, tiles u24, newest i64 (only where size > 0),
    ages u32[size] (newest - time, ms), values[size] of `width` bytes, times i64[tiles], values f64[tiles] of the
    records that make up its tiles — little-endian, each part padded to 8 bytes

The rings are those of the views, and that of the ids where the stage remembers them. `width` is 1 where every value
is a whole number in 0 … 255, 4 where float32 holds them exactly, otherwise 8. The same state has the same bytes,
always: states are compared as bytes.
"""

import numpy as np
from numba import njit
from numba.core import types
from numpy.typing import NDArray

from streams.features.arena import RECORDS_A_TILE, RINGS, F64s, I64s, Rings
from streams.kernels import BYTES, F64, I64, INT, OUT_BYTES, OUT_F64, OUT_I64, VOID, kernel

HEADER = 16
WORDS = types.Array(types.uint64, 1, "C", readonly=True)
LONGEST_KEEP = (1 << 32) - 1  # ms: ages are 32 bits wide

OK, OTHER_FEATURES, CORRUPT = 0, 1, 2


@njit(cache=True, inline="always")
def _padded(size):
    return (size + 7) & ~7


@kernel(INT(F64))
def _width(values):
    """Return the narrowest width in bytes that holds every value exactly."""
    width = 1
    for value in values:
        if width == 1 and not (0.0 <= value <= 255.0 and value == np.floor(value)):
            width = 4
        if width == 4 and np.float64(np.float32(value)) != value:
            return 8
    return width


@kernel(types.uint64(WORDS))
def _checksum(words):
    """FNV-1a over 64-bit words, with the high bits brought down: else two flipped top bits would cancel."""
    digest = np.uint64(14695981039346656037)
    for word in words:
        digest = (digest ^ word) * np.uint64(1099511628211)
        digest ^= digest >> np.uint64(32)
    return digest


@njit(cache=True, inline="always")
def _ring(state, at):
    """Return how many records, bytes a value and records of tiles the ring has that begins at `at`."""
    words = state[at : at + 8].view(np.uint32)
    return int(words[0]), int(words[1] & 255), int(words[1] >> 8)


@njit(cache=True, inline="always")
def _length(size, width, tiles):
    """Return how many bytes such a ring takes."""
    return 8 if size == 0 else 16 + _padded(4 * size) + _padded(width * size) + 16 * tiles


@kernel(OUT_I64(I64, INT, RINGS, F64))
def sizes(slots: I64s, views: int, rings: Rings, values: F64s) -> I64s:
    """Return where each entity's bytes end when packed one after the other, int64[n]."""
    ends = np.empty(slots.size, np.int64)
    end = 0
    for i in range(slots.size):
        end += HEADER
        for which in range(rings.shape[1] - views):
            ring = rings[slots[i], which]
            start = ring["base"] + ring["first"]
            width = _width(values[start : start + ring["size"]])
            tiles = rings[slots[i], rings.shape[1] - views + which]["size"] if ring["tiled"] else 0
            end += _length(ring["size"], width, tiles)
        ends[i] = end
    return ends


@kernel(VOID(I64, OUT_I64, types.uint64, INT, RINGS, I64, F64, OUT_BYTES))
def pack(
    slots: I64s,
    ends: I64s,
    fingerprint: np.uint64,
    views: int,
    rings: Rings,
    times: I64s,
    values: F64s,
    buffer: NDArray[np.uint8],
) -> None:
    """Write the entities into `buffer` uint8[ends[-1]], which is zeroed."""
    for i in range(slots.size):
        begin = ends[i - 1] if i > 0 else 0
        at = begin + HEADER
        for which in range(rings.shape[1] - views):
            ring = rings[slots[i], which]
            size = ring["size"]
            start = ring["base"] + ring["first"]
            held = values[start : start + size]
            width = _width(held)
            tiles = rings[slots[i], rings.shape[1] - views + which]["size"] if ring["tiled"] else 0
            words = buffer[at : at + 8].view(np.uint32)
            words[0], words[1] = size, width + (tiles << 8)
            at += 8
            if size == 0:
                continue
            newest = times[start + size - 1]
            buffer[at : at + 8].view(np.int64)[0] = newest
            at += 8
            ages = buffer[at : at + 4 * size].view(np.uint32)
            for j in range(size):
                ages[j] = newest - times[start + j]
            at += _padded(4 * size)
            if width == 1:
                small = buffer[at : at + size]
                for j in range(size):
                    small[j] = np.uint8(held[j])
            elif width == 4:
                middle = buffer[at : at + 4 * size].view(np.float32)
                for j in range(size):
                    middle[j] = held[j]
            else:
                buffer[at : at + 8 * size].view(np.float64)[:] = held
            at += _padded(width * size)
            if tiles > 0:
                run = rings[slots[i], rings.shape[1] - views + which]
                first = run["base"] + run["first"]
                buffer[at : at + 8 * tiles].view(np.int64)[:] = times[first : first + tiles]
                at += 8 * tiles
                buffer[at : at + 8 * tiles].view(np.float64)[:] = values[first : first + tiles]
                at += 8 * tiles
        header = buffer[begin : begin + HEADER].view(np.uint64)
        header[0] = fingerprint
        header[1] = _checksum(buffer[begin + HEADER : ends[i]].view(np.uint64)) ^ fingerprint


@kernel(INT(BYTES, types.uint64, INT, INT))
def verify(state: NDArray[np.uint8], fingerprint: np.uint64, views: int, rings: int) -> int:
    """Return whether `state` uint8[n] of so many rings, those of views first, can be loaded: OK or why not.

    It may have a sound checksum and still be none of ours.
    """
    if state.size < HEADER + 8 * rings or state.size % 8:
        return CORRUPT
    header = state[:HEADER].view(np.uint64)
    if header[1] != _checksum(state[HEADER:].view(np.uint64)) ^ header[0]:
        return CORRUPT
    if header[0] != fingerprint:
        return OTHER_FEATURES
    at = HEADER
    for which in range(rings):
        if at + 8 > state.size:
            return CORRUPT
        size, width, tiles = _ring(state, at)
        of_ours = width in {1, 4, 8} if size > 0 else tiles == 0
        if not of_ours or (tiles > 0 and (which >= views or tiles % RECORDS_A_TILE)):
            return CORRUPT
        at += _length(size, width, tiles)
    return OK if at == state.size else CORRUPT


@kernel(OUT_I64(BYTES, INT, INT))
def counts(state: NDArray[np.uint8], views: int, rings: int) -> I64s:
    """Return how many records a verified state has for each of an entity's rings, int64[rings]."""
    records = np.zeros(rings, np.int64)
    at = HEADER
    for which in range(rings - views):
        size, width, tiles = _ring(state, at)
        records[which] = size
        if which < views:
            records[rings - views + which] = tiles
        at += _length(size, width, tiles)
    return records


@kernel(VOID(BYTES, INT, INT, RINGS, OUT_I64, OUT_F64))
def unpack(state: NDArray[np.uint8], slot: int, views: int, rings: Rings, times: I64s, values: F64s) -> None:
    """Load a verified state into `slot`'s rings, which have the room."""
    at = HEADER
    for which in range(rings.shape[1] - views):
        size, width, tiles = _ring(state, at)
        at += 8
        ring, run = rings[slot, which], rings[slot, min(rings.shape[1] - views + which, rings.shape[1] - 1)]
        ring["first"], ring["size"] = 0, size
        if which < views:
            run["first"], run["size"] = 0, tiles
            ring["tiled"] = tiles > 0
        if size == 0:
            continue
        base = ring["base"]
        newest = state[at : at + 8].view(np.int64)[0]
        at += 8
        ages = state[at : at + 4 * size].view(np.uint32)
        for j in range(size):
            times[base + j] = newest - ages[j]
        at += _padded(4 * size)
        if width == 1:
            for j in range(size):
                values[base + j] = state[at + j]
        elif width == 4:
            middle = state[at : at + 4 * size].view(np.float32)
            for j in range(size):
                values[base + j] = middle[j]
        else:
            values[base : base + size] = state[at : at + 8 * size].view(np.float64)
        at += _padded(width * size)
        if tiles > 0:
            base = run["base"]
            times[base : base + tiles] = state[at : at + 8 * tiles].view(np.int64)
            at += 8 * tiles
            values[base : base + tiles] = state[at : at + 8 * tiles].view(np.float64)
            at += 8 * tiles
