"""The core of the join: (labels, events as scored, labels kept) → examples, label updates, rows, dead letters; pure.

Labels of a partition leave in their order, which is what lets the stages drop what they have seen (D3).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.codec import Decoder, Poison
from schemas.events import Example, Label, Score, Watermark
from streams.agents.settling import Outcome, settle
from streams.features.spec import Over, Stage
from streams.runtime.hop import FROM_LABELS, HopFormat, HopRows
from streams.runtime.partitioner import partition_of
from streams.runtime.records import Records, Spans
from streams.runtime.watermarks import is_watermark, read_watermark
from streams.stores.history import KeptLabel
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
    there is nothing to say. `kept` are the rows that are to be written, by event id."""

    examples: list[Example] = field(default_factory=list)
    kept: dict[str, KeptLabel] = field(default_factory=dict)
    dead: list[tuple[int, Poison]] = field(default_factory=list)
    hops: list[Messages | None] = field(default_factory=list)
    outcomes: Counter[Outcome] = field(default_factory=Counter)


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


def example(
    label: Label,
    score: Score,
    partition: int,
    offset: int,
    weight: float = 1.0,
    corrects: Literal[0, 1] | None = None,
) -> Example:
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
        weight=weight,
        label_partition=partition,
        label_offset=offset,
        corrects=corrects,
        shadow=score.shadow,
    )


class Joiner:
    """Turns a run of one partition's arrivals into outputs; the hop topics have `partitions` partitions each."""

    def __init__(self, usecase: UseCase, partitions: int) -> None:
        self._negatives_kept = usecase.negatives_kept
        later = list(enumerate(usecase.features.stages))[1:]
        self._hops = [_Hop(usecase, number, stage, partitions) for number, stage in later]

    def join(
        self, arrivals: Iterable[Arrival], scores: Mapping[str, Score], kept: Mapping[str, KeptLabel], partition: int
    ) -> Outputs:
        """Return what arrivals of label partition `partition` lead to, given the scores and kept labels by event id.

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
                self._settle(outputs, passing, Joined(offset, content, score), kept, partition)
        outputs.hops.extend(hop.messages(passing, partition) for hop in self._hops)
        return outputs

    def _settle(
        self,
        outputs: Outputs,
        passing: list[Joined | Promise],
        one: Joined,
        kept: Mapping[str, KeptLabel],
        partition: int,
    ) -> None:
        offset, label, score = one
        before = outputs.kept.get(label.event_id) or kept.get(label.event_id)
        outcome, row, weight, corrects = settle(label, partition, offset, before, self._negatives_kept)
        outputs.outcomes[outcome] += 1
        if row:
            outputs.kept[label.event_id] = row
        if outcome in (Outcome.FIRST, Outcome.CORRECTION):
            passing.append(one)
        if weight:
            outputs.examples.append(example(label, score, partition, offset, weight, corrects))


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
