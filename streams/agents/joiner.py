"""The core of the join: (labels, events as they were scored) → examples, label updates and dead letters; pure.

Labels of a partition leave in their order, which is what lets the stages drop what they have seen (D3).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.codec import Decoder, Poison
from schemas.events import Example, Label, Score, Watermark
from streams.features.spec import Over, Stage
from streams.runtime.hop import FROM_LABELS, HopFormat, HopRows
from streams.runtime.records import Records, Spans, partition_of
from streams.runtime.watermarks import is_watermark, read_watermark
from streams.usecases import UseCase

BY_KEY = -1

_decode = Decoder(Label, "label_time")


class Arrival(NamedTuple):
    """What record `row` of a batch of the label topic says, and its offset."""

    row: int
    offset: int
    content: Label | Watermark | Poison


class Joined(NamedTuple):
    """A label and its event as it was scored; `offset` is the label's."""

    offset: int
    label: Label
    score: Score


class Promise(NamedTuple):
    """A watermark on the label topic."""

    offset: int
    watermark: Watermark


@dataclass(frozen=True)
class Messages:
    """n messages for one topic, in order; `partitions` is int32[n], a watermark's key is null."""

    values: Spans
    keys: Spans
    partitions: NDArray[np.int32]


@dataclass(frozen=True)
class Outputs:
    """What a run of a partition's arrivals leads to; `hops` are in the order of the hop topics, None where
    there is nothing to say."""

    examples: list[Example] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    dead: list[tuple[int, Poison]] = field(default_factory=list)
    hops: list[Messages | None] = field(default_factory=list)


def read_labels(records: Records, latest: int) -> list[Arrival]:
    """Return what each record of the label topic says; a label known after `latest` (ms) is poison."""
    values, offsets = records.values(), records.offsets.tolist()
    return [
        Arrival(row, offset, _read(records, row, value, latest))
        for row, (offset, value) in enumerate(zip(offsets, values, strict=True))
    ]


def _read(records: Records, row: int, value: bytes | None, latest: int) -> Label | Watermark | Poison:
    try:
        return read_watermark(value) if is_watermark(records, row) else _decode(value, latest)
    except Poison as poison:
        return poison


def example(label: Label, score: Score, partition: int, offset: int) -> Example:
    """Return what a learner learns of the label at a place of the label topic: the event as it was scored."""
    return Example(
        event_id=score.event_id,
        event_time=score.event_time,
        label_time=label.label_time,
        label=label.label,
        features=score.features,
        score=score.score,
        model_id=score.model_id,
        feature_set=score.feature_set,
        label_partition=partition,
        label_offset=offset,
    )


class Joiner:
    """Turns a run of one partition's arrivals into outputs; the hop topics have `partitions` partitions each."""

    def __init__(self, usecase: UseCase, partitions: int) -> None:
        later = list(enumerate(usecase.features.stages))[1:]
        self._hops = [_Hop(usecase, number, stage, partitions) for number, stage in later]

    def join(self, arrivals: Iterable[Arrival], scores: Mapping[str, Score], partition: int) -> Outputs:
        """Return what arrivals of label partition `partition` lead to, given the scores found by event id.

        A label without a score is poison, "unknown_event".
        """
        outputs, passing = Outputs(), list[Joined | Promise]()
        for row, offset, content in arrivals:
            if isinstance(content, Watermark):
                passing.append(Promise(offset, content))
            elif isinstance(content, Poison):
                outputs.dead.append((row, content))
            elif (score := scores.get(content.event_id)) is None:
                outputs.dead.append((row, Poison("unknown_event", f"no event {content.event_id!r} was scored")))
            else:
                passing.append(Joined(offset, content, score))
                outputs.labels.append(content)
                outputs.examples.append(example(content, score, partition, offset))
        outputs.hops.extend(hop.messages(passing, partition) for hop in self._hops)
        return outputs


class _Hop:
    """What one later stage is told: label updates where it looks at labels, watermarks always."""

    def __init__(self, usecase: UseCase, number: int, stage: Stage, partitions: int) -> None:
        self._format = HopFormat(usecase.features, number)
        self._number = number
        self._entity = stage.entity
        self._wants_labels = any(view.over is Over.LABELS for view in stage.views)
        self._partitions = partitions

    def messages(self, passing: Sequence[Joined | Promise], partition: int) -> Messages | None:
        parts: list[HopRows] = []
        keys: list[bytes | None] = []
        targets: list[int] = []
        for _, run in groupby(filter(self._concerns, passing), type):
            for rows, key, target in self._tell(list(run), partition):
                parts.append(rows)
                keys += key
                targets += target
        if not parts:
            return None
        spans, chosen = Spans.of(keys), np.array(targets, np.int32)
        partitions = np.where(chosen == BY_KEY, partition_of(spans, self._partitions), chosen)
        return Messages(self._format.encode(HopRows.concatenate(parts)), spans, partitions.astype(np.int32))

    def _concerns(self, one: Joined | Promise) -> bool:
        # An event that was scored before this entity was declared has no key for it.
        return isinstance(one, Promise) or (self._wants_labels and self._entity in one.score.entities)

    def _tell(
        self, run: Sequence[Joined | Promise], partition: int
    ) -> Iterable[tuple[HopRows, list[bytes | None], Iterable[int]]]:
        """Yield rows with their keys and partitions for a run of one kind."""
        joined = [one for one in run if isinstance(one, Joined)]
        if joined:
            ids = [one.score.entities[self._entity] for one in joined]
            rows = self._format.label_updates(
                self._number,
                ids,
                [one.label.event_id for one in joined],
                [one.label.label for one in joined],
                np.array([one.label.label_time for one in joined], np.int64),
                partition,
                np.array([one.offset for one in joined], np.int64),
            )
            yield rows, [id_.encode() for id_ in ids], [BY_KEY] * len(ids)
        for one in run:
            if isinstance(one, Promise):
                # Each partition of the stage waits for this source, so each is told.
                row = self._format.watermark(one.watermark.watermark, FROM_LABELS, partition, one.offset)
                everywhere = np.zeros(self._partitions, np.int64)
                yield row.take(everywhere), [None] * self._partitions, range(self._partitions)
