"""The join's core: labels and the events found for them lead to examples, label updates and dead letters."""

from dataclasses import replace

import numpy as np

from schemas.codec import Poison, encode
from schemas.events import WATERMARK_HEADER, Label, Score, Watermark
from streams.agents.joiner import Arrival, Joiner, Messages, example, read_labels
from streams.features.spec import FeatureSet, Over, View
from streams.runtime.hop import END_OF_WATERMARKS, FROM_LABELS, LABEL, WATERMARK, HopFormat, HopRows
from streams.runtime.partitioner import partition_of
from streams.runtime.records import Records, Spans
from streams.stores.history import KeptLabel
from streams.usecases import FRAUD

PARTITIONS = 3
NOW = 1_000_000
HEADER = [(WATERMARK_HEADER, b"1")]


def score(event_id: str, terminal: str = "t1", **entities: str) -> Score:
    keys = {"customer": f"c-{event_id}", "terminal": terminal} | entities
    return Score(event_id, 5, keys, {"amount": 2.5}, 0.75, "review", "logistic@3", "00ff", 6, 7)


def records(*values: bytes | None, watermarks: tuple[int, ...] = (), first_offset: int = 40) -> Records:
    n = len(values)
    headers = [HEADER if row in watermarks else [] for row in range(n)]
    return Records.of([None] * n, values, range(first_offset, first_offset + n), [1] * n, headers)


def label(event_id: str, label: int = 1, time: int = 9) -> bytes:
    return encode({"event_id": event_id, "label_time": time, "label": label})


def decoded(messages: Messages | None, stage: int = 1, features: FeatureSet = FRAUD.features) -> HopRows:
    assert messages is not None
    rows, damaged = HopFormat(features, stage).decode(
        Records.of(
            messages.keys.to_list(),
            messages.values.to_list(),
            range(len(messages.partitions)),
            [0] * len(messages.partitions),
        )
    )
    assert not len(damaged)
    return rows


def test_a_label_becomes_an_example_of_the_event_as_scored() -> None:
    """The example has the score's features, score, model and feature set as they are, and the label's time."""
    found = score("a")
    outputs = Joiner(FRAUD, PARTITIONS).join(read_labels(records(label("a")), NOW), {"a": found}, {}, 2)
    assert outputs.kept == {"a": KeptLabel(Label("a", 9, 1), 2, 40)}
    (one,) = outputs.examples
    assert one == example(Label("a", 9, 1), found, 2, 40)
    assert (one.label_partition, one.label_offset) == (2, 40)
    assert (one.features, one.score, one.model_id, one.feature_set) == ({"amount": 2.5}, 0.75, "logistic@3", "00ff")
    assert (one.event_time, one.label_time, one.label, one.weight) == (5, 9, 1, 1.0)


def test_label_updates_go_to_the_terminal_in_the_order_of_the_labels() -> None:
    """Each joined label becomes a row for its terminal: its source, time and label, keyed and placed by terminal."""
    batch = records(label("a", 1, 9), label("b", 0, 8), label("c", 1, 8))
    scores = {event_id: score(event_id, terminal=f"t-{event_id}") for event_id in "abc"}
    (messages,) = Joiner(FRAUD, PARTITIONS).join(read_labels(batch, NOW), scores, {}, 2).hops
    assert messages is not None
    keys = [b"t-a", b"t-b", b"t-c"]
    assert messages.keys.to_list() == keys
    assert messages.partitions.tolist() == partition_of(Spans.of(keys), PARTITIONS).tolist()
    rows = decoded(messages)
    assert rows.kinds.tolist() == [LABEL] * 3
    assert rows.source_topics.tolist() == [FROM_LABELS] * 3
    assert rows.source_partitions.tolist() == [2] * 3
    assert rows.source_offsets.tolist() == [40, 41, 42]
    assert rows.times.tolist() == [9, 8, 8]
    assert rows.numbers[:, 1].tolist() == [1.0, 0.0, 1.0]
    assert rows.texts[0] == ["a", "b", "c"]
    assert rows.texts[2] == ["t-a", "t-b", "t-c"]


def test_watermarks_go_to_every_partition_in_their_place() -> None:
    """A watermark reaches each partition of the hop topic after the labels before it and before those after it."""
    batch = records(label("a"), encode(Watermark(50)), label("b"), encode(Watermark(None)), watermarks=(1, 3))
    scores = {event_id: score(event_id) for event_id in "ab"}
    (messages,) = Joiner(FRAUD, PARTITIONS).join(read_labels(batch, NOW), scores, {}, 0).hops
    assert messages is not None
    rows = decoded(messages)
    assert rows.kinds.tolist() == [LABEL, *[WATERMARK] * 3, LABEL, *[WATERMARK] * 3]
    assert rows.times.tolist() == [9, 50, 50, 50, 9, *[END_OF_WATERMARKS] * 3]
    assert rows.source_offsets.tolist() == [40, 41, 41, 41, 42, 43, 43, 43]
    assert messages.partitions[1:4].tolist() == messages.partitions[5:8].tolist() == [0, 1, 2]
    assert messages.keys.to_list()[1:4] == [None] * 3


def test_poison_and_unknown_events_are_set_aside_and_stop_nothing() -> None:
    """What cannot be read or found is named with its row and reason; everything else passes."""
    batch = records(b"{", label("a"), None, label("?"), b"{}", label("late", time=NOW + 1), b"no", watermarks=(6,))
    outputs = Joiner(FRAUD, PARTITIONS).join(read_labels(batch, NOW), {"a": score("a"), "late": score("late")}, {}, 0)
    reasons = {row: poison.reason for row, poison in outputs.dead}
    assert reasons == {0: "undecodable", 2: "null", 3: "unknown_event", 4: "invalid", 5: "future", 6: "invalid"}
    assert [one.event_id for one in outputs.examples] == ["a"]
    assert decoded(outputs.hops[0]).source_offsets.tolist() == [41]


def test_an_event_without_the_entity_makes_an_example_only() -> None:
    """An event scored before a stage was declared has no key for it: it is learnt from, the stage is not told."""
    bare = score("a")
    bare.entities.pop("terminal")
    outputs = Joiner(FRAUD, PARTITIONS).join(read_labels(records(label("a")), NOW), {"a": bare}, {}, 0)
    assert len(outputs.examples) == 1
    assert outputs.hops == [None]


def test_a_stage_that_looks_at_no_labels_gets_watermarks_only() -> None:
    """Without a view over labels a stage is told of watermarks alone."""
    terminal = FRAUD.features.stages[1]
    views: tuple[View, ...] = tuple(view for view in terminal.views if view.over is Over.EVENTS)
    features = replace(FRAUD.features, stages=(FRAUD.features.stages[0], replace(terminal, views=views)))
    batch = records(label("a"), encode(Watermark(50)), watermarks=(1,))
    joiner = Joiner(replace(FRAUD, features=features), PARTITIONS)
    (messages,) = joiner.join(read_labels(batch, NOW), {"a": score("a")}, {}, 0).hops
    assert messages is not None
    assert messages.partitions.tolist() == [0, 1, 2]
    assert np.all(decoded(messages, features=features).kinds == WATERMARK)


def test_left_out_negatives_are_told_to_the_stages_all_the_same() -> None:
    """With a share of the negatives learnt, the learner is told of fewer, with weights; terminals are told of all, and
    every label is kept with what it was learnt with."""
    ids = [f"e{number}" for number in range(40)]
    batch = records(*(label(event_id, 1 if number < 4 else 0) for number, event_id in enumerate(ids)))
    scores = {event_id: score(event_id) for event_id in ids}
    outputs = Joiner(replace(FRAUD, negatives_kept=0.25), PARTITIONS).join(read_labels(batch, NOW), scores, {}, 0)
    weights = {one.event_id: one.weight for one in outputs.examples}
    assert {weights[event_id] for event_id in ids[:4]} == {1.0}
    assert 4 < len(weights) < 30
    assert {weights[event_id] for event_id in ids[4:] if event_id in weights} == {4.0}
    assert {event_id: kept.weight for event_id, kept in outputs.kept.items()} == dict.fromkeys(ids, 0.0) | weights
    assert len(decoded(outputs.hops[0])) == len(ids)


def test_nothing_leads_to_nothing() -> None:
    """An empty run has no outputs."""
    outputs = Joiner(FRAUD, PARTITIONS).join([], {}, {}, 0)
    assert (outputs.examples, outputs.dead, outputs.hops) == ([], [], [None])


def test_arrivals_keep_their_rows_and_offsets() -> None:
    """Every record is accounted for, in order."""
    arrivals = read_labels(records(label("a"), b"", label("b")), NOW)
    assert [(one.row, one.offset) for one in arrivals] == [(0, 40), (1, 41), (2, 42)]
    assert [type(one.content) for one in arrivals] == [Label, Poison, Label]
    assert isinstance(arrivals[0], Arrival)
