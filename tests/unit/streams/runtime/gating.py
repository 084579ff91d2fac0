"""What the tests of the gate share: rows, the log they come in, and what hypothesis draws of both."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from streams.runtime.gate import Gate
from streams.runtime.hop import END_OF_WATERMARKS, EVENT, LABEL, WATERMARK, HopRows

PARTITIONS = 2
SOURCES = [(topic, partition) for topic in (0, 1) for partition in range(PARTITIONS)]
EVENTS_0, EVENTS_1, LABELS_0, LABELS_1 = SOURCES
"""(topic, partition) pairs; each writes rows at rising offsets into one hop log, where a row has another one."""
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
