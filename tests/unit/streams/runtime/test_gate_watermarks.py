"""With watermarks, whoever comes first and however the log is cut: rows pass once, in one order, and none is lost."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from streams.runtime.gate import NEVER, Gate, Marks
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
    content,
    cuts,
    drawn,
    event,
    feed,
    in_order,
    interleaved,
    logs,
    one_source,
    promise,
    promised,
    rows_of,
)


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
