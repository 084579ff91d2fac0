"""Hop messages: what is encoded is what is decoded, and damage stays where it is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.features.spec import Aggregate, FeatureSet, Over, Stage, View, Window, windowed
from streams.runtime.hop import (
    END_OF_WATERMARKS,
    EVENT,
    FROM_EVENTS,
    FROM_LABELS,
    LABEL,
    WATERMARK,
    HopFormat,
    HopRows,
    features_of,
)
from streams.runtime.records import Records
from streams.usecases import FRAUD
from tests.unit.streams.rows import same
from tests.wider import WIDER

TERMINAL = 1
FORMAT = HopFormat(FRAUD.features, TERMINAL)
FEATURES = len(FRAUD.features.stages[0].names)

drawn = settings(deadline=None, max_examples=100)

ids = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(["", "ключ", "\x00", "é" * 128])
int64s = st.integers(-(2**63), 2**63 - 1)
numbers = st.floats(width=64) | st.sampled_from([-0.0, 5e-324])


@st.composite
def hop_rows(draw: st.DrawFn, most: int = 12) -> HopRows:
    """Rows of all kinds, mixed, from any source."""
    n = draw(st.integers(0, most))

    def column(values: st.SearchStrategy[int]) -> np.ndarray:
        return np.array(draw(st.lists(values, min_size=n, max_size=n)), np.int64)

    drawn_numbers = draw(st.lists(numbers, min_size=n * FORMAT.numbers, max_size=n * FORMAT.numbers)) if n < 4 else []
    return HopRows(
        kinds=column(st.sampled_from([EVENT, LABEL, WATERMARK])).astype(np.int8),
        source_topics=column(st.sampled_from([FROM_EVENTS, FROM_LABELS])),
        source_partitions=column(st.integers(0, 2**16 - 1)),
        source_offsets=column(int64s),
        times=column(int64s),
        received=column(int64s),
        numbers=np.resize(np.array(drawn_numbers or [0.5]), (n, FORMAT.numbers)),
        positions=np.arange(100, 100 + n),
        texts=tuple(draw(st.lists(ids, min_size=n, max_size=n)) for _ in range(FORMAT.texts)),
    )


def records(values: list[bytes | None], first_position: int = 100) -> Records:
    n = len(values)
    return Records.of([b"key"] * n, values, range(first_position, first_position + n), [0] * n)


@drawn
@given(hop_rows())
def test_rows_come_back(rows: HopRows) -> None:
    """Every kind, any ids (not ASCII, empty, with NULs), any numbers: encoded and decoded is the same."""
    decoded, damaged = FORMAT.decode(records(FORMAT.encode(rows).to_list()))
    assert same(decoded, rows)
    assert damaged.tolist() == []


@drawn
@given(hop_rows(), st.data())
def test_what_is_no_row_is_named_and_harms_no_other(rows: HopRows, data: st.DataObject) -> None:
    """Foreign, cut, lengthened and null values among the rows are reported by place; the rows are all there."""
    values = FORMAT.encode(rows).to_list()
    narrow = HopFormat(FRAUD.features, 0)
    foreign = narrow.encode(narrow.watermark(5, FROM_EVENTS, 0, 1)).to_list()[0]
    whole = FORMAT.encode(_one()).to_list()[0]
    assert foreign is not None
    assert whole is not None
    damage = st.sampled_from([None, b"", b"{}", foreign, whole[:-1], whole + b"\0", b"\x07" + whole[1:]])
    places, mixed = [], []
    for value in values:
        for bad in data.draw(st.lists(damage, max_size=2)):
            places.append(len(mixed))
            mixed.append(bad)
        mixed.append(value)
    decoded, damaged = FORMAT.decode(records(mixed))
    assert damaged.tolist() == places
    sound = np.setdiff1d(np.arange(len(mixed)), places)
    assert decoded.positions.tolist() == (100 + sound).tolist()
    assert decoded.texts == rows.texts
    assert decoded.numbers.tobytes() == rows.numbers.tobytes()


def test_a_row_of_another_feature_set_is_no_row() -> None:
    """One window more, and rows are not read even where their sizes would fit; they say whose they are."""
    ours, theirs = HopFormat(FRAUD.features, 0), HopFormat(WIDER.features, 0)
    row = ours.watermark(5, FROM_EVENTS, 0, 1)
    [mine], foreign = ours.encode(row).to_list(), theirs.encode(row).to_list()
    assert len(mine or b"") == len(foreign[0] or b"")
    decoded, damaged = ours.decode(records(foreign))
    assert (len(decoded), damaged.tolist()) == (0, [0])
    assert features_of(foreign[0]) == WIDER.features.fingerprint != FRAUD.features.fingerprint


@pytest.mark.parametrize("message", [None, b"", b"hop1", b"{}" * 40])
def test_what_is_no_hop_message_is_of_no_feature_set(message: bytes | None) -> None:
    """Anything may be on a topic; it is not taken for another feature set's."""
    assert features_of(message) is None


def _one() -> HopRows:
    return FORMAT.watermark(5, FROM_EVENTS, 0, 1)


@pytest.mark.parametrize(("at", "value"), [(0, 3), (0, 255), (1, 2), (1, 255)])
def test_a_row_of_an_unknown_kind_or_source_is_damaged(at: int, value: int) -> None:
    """A row that names a kind or a source topic that there is not is not taken for another."""
    message = bytearray(FORMAT.encode(_one()).to_list()[0] or b"")
    message[at] = value
    decoded, damaged = FORMAT.decode(records([bytes(message)]))
    assert (len(decoded), damaged.tolist()) == (0, [0])


def test_damaged_text_is_text_all_the_same() -> None:
    """Bytes that are not UTF-8 in a row's ids raise nothing and touch no other row."""
    rows = HopRows.concatenate([FORMAT.label_updates(TERMINAL, [key], ["e"], [1], np.array([5]), 0, np.array([0]))
                                for key in ("éé", "ключ")])  # fmt: skip
    first, second = (value or b"" for value in FORMAT.encode(rows).to_list())
    decoded, damaged = FORMAT.decode(records([first[:-1] + b"\xff", second]))
    assert damaged.tolist() == []
    assert decoded.texts[1 + TERMINAL][1] == "ключ"


def test_nothing_is_nothing() -> None:
    """No records, no rows; no rows, no messages."""
    decoded, damaged = FORMAT.decode(records([]))
    assert (len(decoded), damaged.tolist(), len(decoded.texts)) == (0, [], FORMAT.texts)
    assert FORMAT.encode(decoded).to_list() == []


def test_label_updates_name_label_key_and_source() -> None:
    """An update carries the label where the kernel looks for it, the entity's id, and where the label came from."""
    rows = FORMAT.label_updates(TERMINAL, ["t1", "t2"], ["a", "b"], [1, 0], np.array([7, 8]), 3, np.array([40, 42]))
    assert rows.kinds.tolist() == [LABEL, LABEL]
    assert rows.numbers[:, len(FRAUD.features.values)].tolist() == [1.0, 0.0]
    assert rows.numbers.sum() == 1.0
    assert rows.texts == (["a", "b"], ["", ""], ["t1", "t2"])
    assert rows.times.tolist() == [7, 8]
    assert (rows.source_topics.tolist(), rows.source_partitions.tolist()) == ([FROM_LABELS] * 2, [3, 3])
    assert rows.source_offsets.tolist() == [40, 42]


@pytest.mark.parametrize(("time", "written"), [(0, 0), (12, 12), (None, END_OF_WATERMARKS)])
def test_watermarks_name_time_and_source(time: int | None, written: int) -> None:
    """A watermark is one row with its time, or the end of the promise, and where it came from."""
    row = FORMAT.watermark(time, FROM_LABELS, 2, 9)
    assert (len(row), row.kinds[0], row.times[0]) == (1, WATERMARK, written)
    assert (row.source_topics[0], row.source_partitions[0], row.source_offsets[0]) == (FROM_LABELS, 2, 9)


@drawn
@given(hop_rows(), st.data())
def test_rows_are_picked_and_joined(rows: HopRows, data: st.DataObject) -> None:
    """Rows cut anywhere and put together again are the same; picked rows come in the order asked."""
    at = data.draw(st.integers(0, len(rows)))
    everything = np.arange(len(rows))
    halves = [rows.take(everything[:at]), rows.take(everything[at:])]
    assert same(HopRows.concatenate(halves), rows)
    assert same(rows.take(everything[::-1]).take(everything[::-1]), rows)


def test_features_so_far_come_after_the_numbers() -> None:
    """A stage adds its features at the end, where the next stage's format expects them."""
    first = HopFormat(FRAUD.features, 0)
    rows = first.watermark(1, FROM_EVENTS, 0, 0)
    features = np.arange(float(FEATURES)).reshape(1, FEATURES)
    widened = rows.widened(features)
    assert widened.numbers.shape == (1, FORMAT.numbers)
    assert widened.numbers[0, first.numbers :].tolist() == features[0].tolist()


def test_the_width_follows_the_stage() -> None:
    """Each stage's rows hold the values, the label and the features of the stages before it."""
    window = Window("w", 1)
    stages = tuple(
        Stage(name, name, (View(Over.EVENTS, "v", windowed(name, Aggregate.COUNT, window)),)) for name in "abc"
    )
    features = FeatureSet(("v",), stages, ())
    assert [HopFormat(features, stage).numbers for stage in range(3)] == [2, 3, 4]
    assert [HopFormat(features, stage).texts for stage in range(3)] == [4, 4, 4]
