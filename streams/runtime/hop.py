"""Hop messages: what one stage passes to the next, keyed by the next entity (internal, binary).

A row is a fixed head (kind, source, feature set, times, numbers), then the event id and the entities' ids as
UTF-8. It names the feature set that wrote it, and is a row to no other. Its *source* is the record it came from
(topic, partition, offset): per source the offsets only rise, so a receiver drops what it has seen (decision D3).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray

from streams.features.spec import FeatureSet, Over
from streams.kernels import BYTES, I64, INT, OUT_BYTES_2D, kernel
from streams.runtime.records import Records, Spans

EVENT, LABEL, WATERMARK = int(Over.EVENTS), int(Over.LABELS), 2
FROM_EVENTS, FROM_LABELS = 0, 1
SOURCE_TOPICS = 2
END_OF_WATERMARKS = -1
"""The time of a watermark row that ends the promise."""

BEGIN = [("kind", "u1"), ("source_topic", "u1"), ("source_partition", "<u2"), ("magic", "<u4"), ("features", "<u8")]
"""How a head begins, whatever the feature set, whose fingerprint `features` is."""

BEGIN_TYPE = np.dtype(BEGIN)
MAGIC = int.from_bytes(b"hop1", "little")


@dataclass(frozen=True, slots=True, eq=False)
class HopRows:
    """n hop messages as columns.

    kinds int8; source_topics, source_partitions, source_offsets, times, received (ms) int64; numbers
    float64[n, …]: the event's values, the label, the features so far; positions int64: the rows' own offsets in
    the hop topic; texts: a list of n event ids, then a list of n ids for each entity (of a label only the
    entity it is sent to).
    """

    kinds: NDArray[np.int8]
    source_topics: NDArray[np.int64]
    source_partitions: NDArray[np.int64]
    source_offsets: NDArray[np.int64]
    times: NDArray[np.int64]
    received: NDArray[np.int64]
    numbers: NDArray[np.float64]
    positions: NDArray[np.int64]
    texts: tuple[list[str], ...]

    def __len__(self) -> int:
        return len(self.kinds)

    def take(self, rows: NDArray[np.int64]) -> "HopRows":
        """Return some rows, in the order given."""
        picked = rows.tolist()
        texts = tuple([column[row] for row in picked] for column in self.texts)
        return HopRows(**{name: getattr(self, name)[rows] for name in _ARRAYS}, texts=texts)

    def between(self, start: int, end: int) -> "HopRows":
        """Return the rows from `start` to before `end`, over the same arrays."""
        texts = tuple(column[start:end] for column in self.texts)
        return HopRows(**{name: getattr(self, name)[start:end] for name in _ARRAYS}, texts=texts)

    def widened(self, features: NDArray[np.float64]) -> "HopRows":
        """Return the rows with `features` float64[n, …] after their numbers."""
        return replace(self, numbers=np.hstack([self.numbers, features]))

    @staticmethod
    def concatenate(parts: Sequence["HopRows"]) -> "HopRows":
        """Return the rows of all parts, one after the other."""
        if len(parts) == 1:
            return parts[0]
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS}
        columns = zip(*(part.texts for part in parts), strict=True)
        return HopRows(**arrays, texts=tuple([*chain.from_iterable(column)] for column in columns))


_ARRAYS = tuple(field.name for field in fields(HopRows) if field.name != "texts")


class HopFormat:
    """The layout of the rows that reach stage `stage` of a feature set."""

    def __init__(self, features: FeatureSet, stage: int) -> None:
        self.texts = 1 + len(features.stages)
        self._label_column = len(features.values)
        self.numbers = len(features.values) + 1 + sum(len(earlier.names) for earlier in features.stages[:stage])
        self._features = np.uint64(int.from_bytes(bytes.fromhex(features.fingerprint), "little"))
        self._head = np.dtype(
            [
                *BEGIN,
                ("sizes", "<u2", (self.texts,)),
                ("source_offset", "<i8"),
                ("time", "<i8"),
                ("received", "<i8"),
                ("numbers", "<f8", (self.numbers,)),
            ]
        )

    def encode(self, rows: HopRows) -> Spans:
        """Return the rows as message values."""
        head = np.zeros(len(rows), self._head)
        head["kind"], head["source_topic"] = rows.kinds, rows.source_topics
        head["magic"], head["features"] = MAGIC, self._features
        head["source_partition"], head["source_offset"] = rows.source_partitions, rows.source_offsets
        head["time"], head["received"], head["numbers"] = rows.times, rows.received, rows.numbers
        columns = [[text.encode() for text in column] for column in rows.texts]
        for i, column in enumerate(columns):
            head["sizes"][:, i] = list(map(len, column))
        width, data = self._head.itemsize, head.tobytes()
        heads = [data[at : at + width] for at in range(0, len(data), width)]
        return Spans.of([b"".join(parts) for parts in zip(heads, *columns, strict=True)])

    def decode(self, records: Records) -> tuple[HopRows, NDArray[np.intp]]:
        """Return the sound rows and the places of records that are none (of another feature set, or damaged)."""
        width, starts, lengths = self._head.itemsize, records.value_start, records.value_size
        fitting = np.flatnonzero(lengths >= width)
        head = _gather(records.buffer, starts[fitting], width).view(self._head)[:, 0]
        sound = lengths[fitting] == width + head["sizes"].sum(axis=1, dtype=np.int64)
        sound &= (head["kind"] <= WATERMARK) & (head["source_topic"] < SOURCE_TOPICS)
        sound &= (head["features"] == self._features) & (head["magic"] == MAGIC)
        if not sound.all():
            head, fitting = head[sound], fitting[sound]
        rows = HopRows(
            kinds=head["kind"].astype(np.int8),
            source_topics=head["source_topic"].astype(np.int64),
            source_partitions=head["source_partition"].astype(np.int64),
            source_offsets=head["source_offset"].copy(),  # kernels take dense columns
            times=head["time"].copy(),
            received=head["received"].copy(),
            numbers=head["numbers"],
            positions=records.offsets[fitting],
            texts=_cut(records.buffer, starts[fitting] + width, head["sizes"]),
        )
        return rows, _others(fitting, len(records))

    def label_updates(
        self,
        entity: int,
        keys: Sequence[str],
        event_ids: Sequence[str],
        labels: Sequence[int],
        times: NDArray[np.int64],
        source_partition: int,
        source_offsets: NDArray[np.int64],
    ) -> HopRows:
        """Return updates that tell entity number `entity` (of the feature set's stages) of n labels.

        `times` (ms) is when each label became known; the source is the label's place in the label topic.
        """
        rows = self._bare(LABEL, FROM_LABELS, source_partition, source_offsets, times)
        rows.numbers[:, self._label_column] = labels
        texts: list[list[str]] = [[""] * len(rows) for _ in range(self.texts)]
        texts[0], texts[1 + entity] = list(event_ids), list(keys)
        return replace(rows, texts=tuple(texts))

    def watermark(self, time: int | None, source_topic: int, source_partition: int, source_offset: int) -> HopRows:
        """Return one watermark row; no time ends the promise."""
        times = np.array([END_OF_WATERMARKS if time is None else time])
        return self._bare(WATERMARK, source_topic, source_partition, np.array([source_offset]), times)

    def _bare(
        self, kind: int, topic: int, partition: int, offsets: NDArray[np.int64], times: NDArray[np.int64]
    ) -> HopRows:
        n = len(times)
        return HopRows(
            np.full(n, kind, np.int8),
            np.full(n, topic, np.int64),
            np.full(n, partition, np.int64),
            np.asarray(offsets, np.int64),
            np.asarray(times, np.int64),
            np.zeros(n, np.int64),
            np.zeros((n, self.numbers)),
            positions=np.zeros(n, np.int64),
            texts=tuple([""] * n for _ in range(self.texts)),
        )


def features_of(message: bytes | None) -> str | None:
    """Return the fingerprint of the feature set that a hop message is of, None if it is no hop message."""
    if message is None or len(message) < BEGIN_TYPE.itemsize:
        return None
    begin = np.frombuffer(message, BEGIN_TYPE, 1)[0]
    return int(begin["features"]).to_bytes(8, "little").hex() if begin["magic"] == MAGIC else None


def _others(rows: NDArray[np.intp], n: int) -> NDArray[np.intp]:
    """Return which of n rows are not among `rows`."""
    others = np.ones(n, bool)
    others[rows] = False
    return np.flatnonzero(others)


@kernel(OUT_BYTES_2D(BYTES, I64, INT))
def _gather(buffer: NDArray[np.uint8], starts: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
    """Return buffer[start : start + width] of each start, uint8[n, width]."""
    out = np.empty((starts.size, width), np.uint8)
    for i in range(starts.size):
        out[i] = buffer[starts[i] : starts[i] + width]
    return out


def _cut(buffer: NDArray[np.uint8], starts: NDArray[np.int64], sizes: NDArray[np.uint16]) -> tuple[list[str], ...]:
    """Cut every row's texts out of the buffer, column by column.

    Nearly always all are ASCII, so the whole is decoded once as Latin-1 and cut as a string.
    """
    if not len(starts):
        return tuple([] for _ in range(sizes.shape[1]))
    ends = starts[:, None] + np.cumsum(sizes, axis=1, dtype=np.int64)
    low, high = int(starts[0]), int(ends[-1, -1])
    text = buffer[low:high].tobytes().decode("latin-1")
    bounds = [(starts - low).tolist(), *(ends - low).T.tolist()]
    columns = []
    for begins, stops in pairwise(bounds):
        column = [text[begin:stop] for begin, stop in zip(begins, stops, strict=True)]
        if not "".join(column).isascii():
            column = [item.encode("latin-1").decode("utf-8", "replace") for item in column]
        columns.append(column)
    return tuple(columns)
