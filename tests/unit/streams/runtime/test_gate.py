"""The gate: whoever comes first and however the log is cut, rows pass once, in one order, and none is lost.

Sources are (topic, partition) pairs; each writes rows at rising offsets into one hop log, whose position is the
row's own offset. `Log` is that log; feeding it in parts is what a worker's fetches do.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.features.seen import Seen
from streams.features.table import StateRefused
from streams.runtime.gate import NEVER, Gate, Marks
from streams.runtime.hop import END_OF_WATERMARKS, EVENT, LABEL, WATERMARK, HopRows

PARTITIONS = 2
SOURCES = [(topic, partition) for topic in (0, 1) for partition in range(PARTITIONS)]
EVENTS_0, EVENTS_1, LABELS_0, LABELS_1 = SOURCES
OLDEST = 0

drawn = settings(deadline=None, max_examples=100)


@dataclass(frozen=True)
class Row:
    """One row of a hop log; `offset` is the source's."""

    source: tuple[int, int]
    offset: int
    kind: int
    time: int
    id: str = ""

    @property
    def order(self) -> tuple[int, int, bytes]:
        return self.time, -self.kind, self.id.encode()


def columns(rows: list[Row], first_position: int = 0) -> HopRows:
    n = len(rows)

    def column(values: list[int]) -> np.ndarray:
        return np.array(values, np.int64)

    return HopRows(
        kinds=np.array([row.kind for row in rows], np.int8),
        source_topics=column([row.source[0] for row in rows]),
        source_partitions=column([row.source[1] for row in rows]),
        source_offsets=column([row.offset for row in rows]),
        times=column([row.time for row in rows]),
        received=column([0] * n),
        numbers=np.zeros((n, 2)),
        positions=np.arange(first_position, first_position + n),
        texts=([row.id for row in rows], [""] * n, [""] * n),
    )


def rows_of(columns: HopRows) -> list[Row]:
    heads = zip(
        columns.source_topics.tolist(), columns.source_partitions.tolist(), columns.source_offsets.tolist(),
        columns.kinds.tolist(), columns.times.tolist(), columns.texts[0], strict=True,
    )  # fmt: skip
    return [Row((topic, partition), offset, kind, time, id_) for topic, partition, offset, kind, time, id_ in heads]


def feed(gate: Gate, log: list[Row], cuts: list[int] | None = None, start: int = 0) -> list[Row]:
    """Receive `log` from `start` on, cut into batches at `cuts` (one row a batch where None)."""
    inner = range(start, len(log)) if cuts is None else cuts
    bounds = sorted({start, len(log), *(cut for cut in inner if start <= cut <= len(log))})
    return [row for lo, hi in pairwise(bounds) for row in rows_of(gate.receive(columns(log[lo:hi], lo)))]


def event(source: tuple[int, int], offset: int, time: int, id_: str = "") -> Row:
    return Row(source, offset, EVENT, time, id_)


def promise(source: tuple[int, int], offset: int, time: int | None) -> Row:
    return Row(source, offset, WATERMARK, END_OF_WATERMARKS if time is None else time)


def promised(offset: int, time: int | None) -> list[Row]:
    """The same promise of every source."""
    return [promise(source, offset, time) for source in SOURCES]


def content(log: list[Row]) -> list[Row]:
    return [row for row in log if row.kind != WATERMARK]


def in_order(log: list[Row]) -> list[Row]:
    return sorted(content(log), key=lambda row: row.order)


# What hypothesis draws: what each source sends, and how the sources' rows come together.


@st.composite
def one_source(draw: st.DrawFn, source: tuple[int, int], number: int) -> list[Row]:
    """A first promise, rows in time order with honest promises between them, and the end."""
    times = sorted(draw(st.lists(st.integers(0, 20), max_size=8)))
    kind = EVENT if source[0] == 0 else LABEL
    marks = draw(st.lists(st.booleans(), min_size=len(times), max_size=len(times)))
    rows, offset = [promise(source, 0, OLDEST)], 0
    for at, (time, mark) in enumerate(zip(times, marks, strict=True)):
        offset += draw(st.integers(1, 3))
        # A file's ids rise with nothing; labels may name any event.
        rows.append(Row(source, offset, kind, time, f"{draw(st.sampled_from('xyzü'))}{number}{at}"))
        if mark:
            offset += 1
            following = times[at + 1] if at + 1 < len(times) else 99
            rows.append(promise(source, offset, draw(st.integers(time, following))))
    rows.append(promise(source, offset + 1, None))
    return rows


@st.composite
def interleaved(draw: st.DrawFn, parts: list[list[Row]]) -> list[Row]:
    """The parts' rows in any order that keeps each part's."""
    turns = [number for number, part in enumerate(parts) for _ in part]
    left = [iter(part) for part in parts]
    return [next(left[number]) for number in draw(st.permutations(turns))]


@st.composite
def logs(draw: st.DrawFn) -> list[Row]:
    return draw(interleaved([draw(one_source(source, number)) for number, source in enumerate(SOURCES)]))


cuts = st.none() | st.lists(st.integers(0, 60), max_size=6)


# Without watermarks.


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


# With watermarks.


@drawn
@given(logs(), cuts)
def test_the_order_is_one_whatever_the_interleaving(log: list[Row], cuts: list[int] | None) -> None:
    """Sources in any interleaving, the log in any batches: all rows, in time, labels first, id order."""
    gate = Gate(PARTITIONS)
    assert feed(gate, log, cuts) == in_order(log)
    assert gate.held == 0
    assert (gate.marks().watermarks == NEVER).all()


def test_rows_wait_for_every_source() -> None:
    """A row goes when the last source has promised nothing before its time, or at it."""
    gate = Gate(PARTITIONS)
    waiting = [event(EVENTS_0, 1, 10, "a"), event(EVENTS_0, 2, 11, "b")]
    assert feed(gate, [*promised(0, 0), *waiting, *(promise(source, 3, 11) for source in SOURCES[:-1])]) == []
    assert gate.held == 2
    assert feed(gate, [promise(LABELS_1, 3, 10)]) == []  # a label at 10 may still come
    assert feed(gate, [promise(LABELS_1, 4, 11)]) == waiting[:1]
    assert feed(gate, promised(5, None)) == waiting[1:]


def test_a_source_not_heard_of_is_waited_for() -> None:
    """A source that is done before another has begun has not opened the gate."""
    early = [promise(EVENTS_0, 0, 0), event(EVENTS_0, 1, 20), promise(EVENTS_0, 2, None)]
    late = [promise(EVENTS_1, 0, 0), event(EVENTS_1, 1, 10), promise(EVENTS_1, 2, None)]
    labels = [promise(source, offset, time) for source in (LABELS_0, LABELS_1) for offset, time in ((0, 0), (1, None))]
    gate = Gate(PARTITIONS)
    assert feed(gate, early) == []
    assert feed(gate, late + labels) == [late[1], early[1]]


def test_the_end_of_a_promise_never_made_changes_nothing() -> None:
    """Taking back twice does not close the gate for those who come later."""
    gate = Gate(PARTITIONS)
    assert feed(gate, [promise(EVENTS_0, 0, None), event(EVENTS_0, 1, 5)]) == [event(EVENTS_0, 1, 5)]


@drawn
@given(logs(), logs(), cuts)
def test_a_second_replay_is_ordered_as_the_first(first: list[Row], second: list[Row], cuts: list[int] | None) -> None:
    """A replay over the same stream time, after the first has ended, passes after it in its own order."""
    later = [replace(row, offset=row.offset + 100) for row in second]
    live = [event(EVENTS_0, 99, 3, "live"), event(EVENTS_1, 99, 2, "live")]
    assert feed(Gate(PARTITIONS), first + live + later, cuts) == in_order(first) + live + in_order(later)


@drawn
@given(logs(), st.data())
def test_late_rows_are_folded_too(log: list[Row], data: st.DataObject) -> None:
    """A source that breaks its promise loses nothing, and upsets no other source's order."""
    at = data.draw(st.integers(0, len(log) - 1))
    source, offset = log[at].source, 1000
    log = [replace(row, offset=row.offset + 2000) if row.source == source and i > at else row
           for i, row in enumerate(log)]  # fmt: skip
    late = event(source, offset, 0, "late")
    log.insert(at + 1, late)
    passed = feed(Gate(PARTITIONS), log)
    assert sorted(passed, key=repr) == sorted(content(log), key=repr)
    others = [row for row in passed if row.source != source]
    assert others == [row for row in in_order(log) if row.source != source]


# Crashes.


@drawn
@given(logs(), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 8)), max_size=4), st.data())
def test_a_restart_loses_and_repeats_nothing(
    log: list[Row], crashes: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Kill the worker anywhere; from (resume_at, marks) of any checkpoint the same rows pass in the same order."""
    passed: list[Row] = []
    position, marks, kept = 0, Marks.from_bytes(b"", len(SOURCES)).to_bytes(), 0
    for crash, since_checkpoint in [*sorted(crashes), (len(log), 0)]:
        gate = Gate(PARTITIONS, Marks.from_bytes(marks, len(SOURCES)))
        passed = passed[:kept]  # what was folded after the checkpoint went with the worker's memory
        start = position
        for at in range(start, min(crash, len(log))):
            passed += rows_of(gate.receive(columns(log[at : at + 1], at)))
            if at + 1 <= crash - since_checkpoint:
                position, marks, kept = gate.resume_at(at + 1), gate.marks().to_bytes(), len(passed)
    assert passed == in_order(log)


@drawn
@given(logs(), st.data())
def test_senders_that_start_over_change_nothing(log: list[Row], data: st.DataObject) -> None:
    """A source that repeats its tail, and a worker that restarts besides: every row still passes once, in order."""
    at = data.draw(st.integers(0, len(log)))
    repeated = [row for row in log[:at] if row.source == data.draw(st.sampled_from(SOURCES))]
    again = repeated[data.draw(st.integers(0, len(repeated))) :]
    log = log[:at] + again + log[at:]
    crash = data.draw(st.integers(0, len(log)))
    gate = Gate(PARTITIONS)
    passed = feed(gate, log[:crash])
    start, marks = gate.resume_at(crash), gate.marks()
    passed += feed(Gate(PARTITIONS, marks), log, start=start)
    assert passed == in_order([row for i, row in enumerate(log) if not at <= i < at + len(again)])


def test_a_promise_sent_again_after_its_end_closes_nothing() -> None:
    """A restarted worker still knows the promises of a finished replay as seen."""
    log = [*promised(0, 0), event(EVENTS_0, 1, 5), *promised(2, None)]
    gate = Gate(PARTITIONS)
    feed(gate, log)
    restarted = Gate(PARTITIONS, gate.marks())
    live = event(EVENTS_0, 3, 9)
    assert feed(restarted, [promise(EVENTS_0, 0, 0), promise(EVENTS_0, 2, None), live]) == [live]


def test_held_rows_are_read_again() -> None:
    """A restart reads on at the first row that is held, and drops what was folded behind it."""
    log = [*promised(0, 0), event(EVENTS_0, 1, 9, "held"), event(EVENTS_1, 1, 2, "goes"), *promised(2, 5)]
    gate = Gate(PARTITIONS)
    assert feed(gate, log) == [log[5]]
    assert gate.resume_at(len(log)) == 4
    assert feed(Gate(PARTITIONS, gate.marks()), [*log, *promised(3, None)], start=4) == [log[4]]


# Giving up.


def test_giving_up_returns_what_was_held_in_order() -> None:
    """Rows held for a source that is silent pass in order, and rows pass as they come from then on."""
    held = [event(EVENTS_0, 1, 9, "b"), event(EVENTS_1, 1, 8, "a"), Row(LABELS_0, 1, LABEL, 9, "c")]
    gate = Gate(PARTITIONS)
    assert feed(gate, [promise(EVENTS_0, 0, 0), *held]) == []
    assert rows_of(gate.give_up()) == [held[1], held[2], held[0]]
    assert gate.resume_at(4) == 4
    live = [event(EVENTS_0, 2, 7), event(EVENTS_1, 2, 6)]
    assert feed(gate, live) == live
    assert feed(Gate(PARTITIONS, gate.marks()), held + live) == []


def test_a_new_promise_closes_the_gate_again() -> None:
    """After giving up, the order is kept as before for whoever promises again."""
    gate = Gate(PARTITIONS)
    feed(gate, [promise(EVENTS_0, 0, 0), event(EVENTS_0, 1, 9)])
    gate.give_up()
    log = [*promised(10, 0), event(EVENTS_0, 11, 5), event(EVENTS_1, 11, 4), *promised(12, None)]
    assert feed(gate, log) == in_order(log)


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


@st.composite
def with_labels_astray(draw: st.DrawFn) -> list[Row]:
    """A log in which the labels between two promises of their source come in any order."""
    parts = []
    for number, source in enumerate(SOURCES):
        rows, segment = list[Row](), list[Row]()
        for row in draw(one_source(source, number)):
            if row.kind == LABEL:
                segment.append(row)
                continue
            rows += [*draw(st.permutations(segment)), row]
            segment = []
        parts.append(rows)
    return draw(interleaved(parts))


@drawn
@given(with_labels_astray(), cuts, st.data())
def test_labels_astray_change_no_order(log: list[Row], cuts: list[int] | None, data: st.DataObject) -> None:
    """With watermarks the order is one, whichever label came first, also over a restart."""
    assert feed(Gate(PARTITIONS), log, cuts) == in_order(log)
    crash = data.draw(st.integers(0, len(log)))
    gate = Gate(PARTITIONS)
    passed = feed(gate, log[:crash])
    restarted = Gate(PARTITIONS, Marks.from_bytes(gate.marks().to_bytes(), len(SOURCES)))
    assert passed + feed(restarted, log, start=gate.resume_at(crash)) == in_order(log)


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
