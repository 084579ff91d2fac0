"""The gate without watermarks: rows pass as they come, and once, also after a restart; and the marks it leaves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.features.seen import Seen
from streams.features.table import StateRefused
from streams.runtime.gate import Gate, Marks
from streams.runtime.hop import LABEL
from tests.unit.streams.runtime.gating import (
    EVENTS_0,
    EVENTS_1,
    LABELS_0,
    LABELS_1,
    PARTITIONS,
    SOURCES,
    Row,
    columns,
    event,
    feed,
    promise,
    rows_of,
)


def test_rows_pass_as_they_come() -> None:
    """Without watermarks nothing waits, whatever the times say."""
    log = [event(EVENTS_0, 7, 30), event(EVENTS_1, 3, 10), Row(LABELS_1, 0, LABEL, 20), event(EVENTS_0, 8, 5)]
    gate = Gate(PARTITIONS)
    assert feed(gate, log) == log
    assert (gate.held, gate.duplicates, gate.resume_at(4)) == (0, 0, 4)


def test_what_a_source_sends_again_is_dropped() -> None:
    """A source that starts over after a failure is believed only beyond what was seen of it; others go on."""
    first = [event(EVENTS_0, 0, 1), event(EVENTS_0, 2, 2), event(EVENTS_1, 0, 2)]
    again = [event(EVENTS_0, 0, 1), event(EVENTS_0, 2, 2), event(EVENTS_0, 3, 3), event(EVENTS_1, 1, 3)]
    gate = Gate(PARTITIONS)
    assert feed(gate, first + again, cuts=[3]) == first + again[2:]
    assert gate.duplicates == 2


def test_what_was_folded_is_dropped_after_a_restart() -> None:
    """The marks in a checkpoint are enough to know what has been folded."""
    log = [event(EVENTS_0, 4, 1), event(EVENTS_1, 9, 2), Row(LABELS_0, 5, LABEL, 3)]
    gate = Gate(PARTITIONS)
    feed(gate, log)
    marks = Marks.from_bytes(gate.marks().to_bytes(), len(SOURCES))
    restarted = Gate(PARTITIONS, marks)
    assert feed(restarted, [*log, event(EVENTS_0, 5, 4)]) == [event(EVENTS_0, 5, 4)]
    assert restarted.duplicates == 3


def test_an_empty_batch_passes() -> None:
    """A batch of which nothing is sound is no trouble, open or closed."""
    gate = Gate(PARTITIONS)
    assert rows_of(gate.receive(columns([]))) == []
    feed(gate, [promise(EVENTS_0, 0, 5), event(EVENTS_0, 1, 6)])
    assert rows_of(gate.receive(columns([]))) == []
    assert gate.held == 1


def test_an_unknown_source_is_refused() -> None:
    """Rows of more partitions than this worker was told of are not counted as another source's."""
    with pytest.raises(LookupError, match="source partition 2, of 2"):
        feed(Gate(PARTITIONS), [event((0, PARTITIONS), 0, 1)])


# Labels that overtake each other.


def test_overtaken_labels_pass_once() -> None:
    """A label that waited for its event passes after later ones, and not again, nor do those, after a restart."""
    first = [Row(LABELS_0, offset, LABEL, 1) for offset in (5, 8, 6)]
    again = [Row(LABELS_0, offset, LABEL, 1) for offset in (5, 6, 7, 8, 9)]
    gate = Gate(PARTITIONS)
    assert feed(gate, first) == first
    restarted = Gate(PARTITIONS, Marks.from_bytes(gate.marks().to_bytes(), len(SOURCES)))
    for one in (gate, restarted):
        assert feed(one, again) == [again[2], again[4]]
        assert one.duplicates == 3


# Marks.


@given(st.lists(st.integers(-1, 2**62), min_size=2 * len(SOURCES), max_size=2 * len(SOURCES)))
def test_marks_come_back_from_their_bytes(values: list[int]) -> None:
    """Bytes and back: the same marks."""
    labels = Seen.all_up_to(np.array([3, 4]))
    marks = Marks(np.array(values[: len(SOURCES)]), np.array(values[len(SOURCES) :]), labels)
    back = Marks.from_bytes(marks.to_bytes(), len(SOURCES))
    assert back.labels.to_bytes() == labels.to_bytes()
    assert back.folded.tolist() == marks.folded.tolist()
    assert back.watermarks.tolist() == marks.watermarks.tolist()


def test_marks_of_before_labels_could_be_overtaken_still_hold() -> None:
    """Kept as two arrays alone: every label up to the highest counts as folded."""
    log = [event(EVENTS_0, 4, 1), Row(LABELS_0, 5, LABEL, 3)]
    gate = Gate(PARTITIONS)
    feed(gate, log)
    marks = Marks.from_bytes(gate.marks().to_bytes()[: 16 * len(SOURCES)], len(SOURCES))
    later = [Row(LABELS_0, 7, LABEL, 3), Row(LABELS_0, 6, LABEL, 3)]
    assert feed(Gate(PARTITIONS, marks), [*log, Row(LABELS_0, 3, LABEL, 3), *later]) == later


def test_marks_of_other_sources_are_refused() -> None:
    """Marks of another partition count are not misread, and say what has changed."""
    marks = Gate(PARTITIONS).marks()
    with pytest.raises(StateRefused, match="marks of 4 sources, not of 6: the partition count has changed"):
        Marks.from_bytes(marks.to_bytes(), 6)
