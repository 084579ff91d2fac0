"""Which partition a record goes to: Kafka's default partitioner (murmur2), and rows grouped by partition."""

from collections.abc import Iterator
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from streams.kernels import BYTES, I32, I64, INT, OUT_I32, OUT_I64, kernel, many
from streams.runtime.records import Spans


def partition_of(keys: Spans, partitions: int) -> NDArray[np.int32]:
    """The partition of every key, as Kafka's default (murmur2) partitioner has it; nulls are spread."""
    answer: NDArray[np.int32] = _murmur2(*keys, partitions)
    return answer


def by_partition(partition: NDArray[np.int32], partitions: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Each partition that occurs with its rows, in their order."""
    rows, ends = _grouped(partition, partitions)
    starts = chain([0], ends.tolist())
    for p, (start, end) in enumerate(zip(starts, ends.tolist(), strict=False)):
        if end > start:
            yield p, rows[start:end]


@kernel(OUT_I32(BYTES, I64, I32, INT))
def _murmur2(
    keys: NDArray[np.uint8], key_start: NDArray[np.int64], key_size: NDArray[np.int32], partitions: int
) -> NDArray[np.int32]:
    """The partition of each key; a null key goes by its row."""
    m = np.uint32(0x5BD1E995)
    answer = np.empty(key_size.size, np.int32)
    for row in range(key_size.size):
        size = np.int64(key_size[row])
        if size < 0:
            answer[row] = row % partitions
            continue
        at = key_start[row]
        end = at + size
        h = np.uint32(0x9747B28C) ^ np.uint32(size)
        while at + 4 <= end:
            word = np.uint32(0)
            for i in range(4):
                word |= np.uint32(keys[at + i]) << np.uint32(8 * i)
            k = np.uint32(word * m)
            k ^= k >> np.uint32(24)
            h = np.uint32(h * m) ^ np.uint32(k * m)
            at += 4
        if at < end:
            for i in range(end - at):
                h ^= np.uint32(keys[at + i]) << np.uint32(8 * i)
            h = np.uint32(h * m)
        h ^= h >> np.uint32(13)
        h = np.uint32(h * m)
        h ^= h >> np.uint32(15)
        answer[row] = np.int64(h & np.uint32(0x7FFFFFFF)) % partitions
    return answer


@kernel(many(OUT_I64, 2)(I32, INT))
def _grouped(partitions: NDArray[np.int32], n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows in the order of their partition, order kept within each, and where each partition ends."""
    ends = np.zeros(n + 1, np.int64)
    for p in partitions:
        ends[p + 1] += 1
    for p in range(n):
        ends[p + 1] += ends[p]
    rows = np.empty(partitions.size, np.int64)
    for row in range(partitions.size):
        p = partitions[row]
        rows[ends[p]] = row
        ends[p] += 1
    return rows, ends[:n]
