"""Where records go, against aiokafka's partitioner."""

import numpy as np
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from streams.runtime.partitioner import by_partition, partition_of
from streams.runtime.records import Spans


@given(st.lists(st.binary(max_size=23), min_size=1), st.integers(1, 64))
def test_partitions_are_kafkas(keys: list[bytes], partitions: int) -> None:
    """A key goes where Kafka's default partitioner would send it."""
    everywhere = list(range(partitions))
    expected = [DefaultPartitioner()(key, everywhere, everywhere) for key in keys]
    assert partition_of(Spans.of(keys), partitions).tolist() == expected


@given(st.lists(st.integers(0, 6)))
def test_grouping_keeps_the_order_within_a_partition(partition: list[int]) -> None:
    """Every row is in its partition's group once, in its order."""
    groups = dict(by_partition(np.array(partition, np.int32), 7))
    expected = {p: [i for i, q in enumerate(partition) if q == p] for p in sorted(set(partition))}
    assert {p: rows.tolist() for p, rows in groups.items()} == expected
    assert list(groups) == sorted(groups)
