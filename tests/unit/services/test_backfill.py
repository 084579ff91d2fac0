"""A backfill: a file and a log folded together are what one fold over all would have come to."""

import asyncio
from itertools import repeat
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.events import Label
from services.backfill import __main__ as door
from services.backfill.keep import AlreadyThere, keep
from services.backfill.log import Log
from services.backfill.past import Past, fold
from streams.features.pipeline import Events, Labels, Pipeline
from streams.models.compiled import scorer
from streams.models.learner import Learner
from streams.runtime.gate import Gate, Marks
from streams.runtime.hop import EVENT, FROM_EVENTS, FROM_LABELS, HopRows
from streams.stores import files
from streams.stores.memory import MemoryStateStore
from streams.usecases import FRAUD

STEP, START, COUNT, PARTITIONS = 600_000, 19_700 * 86_400_000, 60, 2
USECASE = FRAUD.deployed("v2")
TOPICS = USECASE.topics(PARTITIONS)
IDS = [f"e{row}" for row in range(COUNT)]
CUSTOMERS = [f"c{row % 7}" for row in range(COUNT)]
TERMINALS = [f"t{row % 3}" for row in range(COUNT)]
TIMES = START + STEP * np.arange(COUNT)
AMOUNTS = 1.0 + np.arange(COUNT) % 11
FRAUDS = np.arange(COUNT) % 2
DELAY = 5 * STEP


def file(folder: Path, rows: range) -> files.Events:
    """Some of the events with their labels, as a file brings them."""
    columns = {
        "event_id": [IDS[row] for row in rows],
        "event_time": TIMES[rows.start : rows.stop],
        "customer_id": [CUSTOMERS[row] for row in rows],
        "terminal_id": [TERMINALS[row] for row in rows],
        "amount": AMOUNTS[rows.start : rows.stop],
        "label": FRAUDS[rows.start : rows.stop],
    }
    pq.write_table(pa.table(columns), folder / "old.parquet")
    return files.read(folder / "old.parquet", USECASE, {})


def log(rows: range) -> list[HopRows]:
    """Some of the events as a partition of the log brings them."""
    n, picked = len(rows), slice(rows.start, rows.stop)
    none = np.zeros(n, np.int64)
    numbers = np.stack([AMOUNTS[picked], np.zeros(n)], axis=1)
    texts = (IDS[picked], CUSTOMERS[picked], TERMINALS[picked])
    return (
        [HopRows(np.full(n, EVENT, np.int8), none, none, none, TIMES[picked], none, numbers, none, texts)] if n else []
    )


def label(row: int) -> Label:
    return Label(IDS[row], int(TIMES[row]) + DELAY, int(FRAUDS[row]))  # type: ignore[arg-type]


def once() -> tuple[Pipeline, np.ndarray]:
    """Every event and label folded once, and the events' features."""
    pipeline = Pipeline(USECASE.features)
    keys = {"customer": [one.encode() for one in CUSTOMERS], "terminal": [one.encode() for one in TERMINALS]}
    ids = [one.encode() for one in IDS]
    vectors = pipeline.fold(
        Events(ids, TIMES, keys, AMOUNTS.reshape(-1, 1)), Labels(ids, TIMES + DELAY, keys, FRAUDS.astype(np.float64))
    )
    return pipeline, vectors


def states(pipeline: Pipeline) -> list[dict[bytes, bytes]]:
    return [table.states() for table in pipeline.tables]


@pytest.mark.parametrize(("filed", "logged"), [(60, 60), (60, 0), (60, 30), (40, 30), (40, 40), (1, 1)])
def test_a_file_and_a_log_are_one_past(tmp_path: Path, filed: int, logged: int) -> None:
    """Wherever the file ends and the log begins, with events in both or not, each event and label counts once."""
    told = [label(row) for row in range(logged, COUNT)]
    past = fold(USECASE, file(tmp_path, range(filed)), DELAY, int(TIMES[-1]) + DELAY, log(range(logged, COUNT)), told)
    pipeline, _ = once()
    assert states(past.pipeline) == states(pipeline)
    assert (past.from_file, past.from_log, past.labelled, past.unknown) == (min(filed, logged), COUNT - logged, 60, 0)


@pytest.mark.parametrize(("filed", "logged"), [(60, 60), (60, 0), (40, 40)])
def test_the_model_has_learnt_each_label_with_the_features_of_its_event(
    tmp_path: Path, filed: int, logged: int
) -> None:
    """Features are those of the event's time, labels come in their order: the weights are a live learner's."""
    told = [label(row) for row in range(logged, COUNT)]
    past = fold(USECASE, file(tmp_path, range(filed)), DELAY, int(TIMES[-1]) + DELAY, log(range(logged, COUNT)), told)
    _, vectors = once()
    learner = Learner(USECASE.recipes[0], USECASE.features.names)
    for vector, fraud in zip(vectors.tolist(), FRAUDS.tolist(), strict=True):
        learner.learn(dict(zip(learner.names, vector, strict=True)), fraud)
    found = past.learners[USECASE.recipes[0]]
    assert found.model_id == learner.model_id == f"{USECASE.recipes[0]}@{COUNT}"
    assert (
        scorer(found.model, learner.names)(vectors).tobytes() == scorer(learner.model, learner.names)(vectors).tobytes()
    )


def test_of_several_labels_the_last_word_counts(tmp_path: Path) -> None:
    """What was assumed, said again or taken back in the log is as if it had not been there."""
    told = [label(row) for row in range(COUNT)]
    wrong = [Label(one.event_id, one.label_time - 1, 1 if one.label == 0 else 0) for one in told[:20]]
    assumed = [Label(one.event_id, one.label_time + DELAY, 0, assumed=True) for one in told]
    past = fold(
        USECASE,
        file(tmp_path, range(1)),
        DELAY,
        int(TIMES[-1]) + DELAY,
        log(range(COUNT)),
        [*assumed[:30], *told, *wrong, *told, *assumed],
    )
    assert states(past.pipeline) == states(once()[0])
    assert (past.labelled, past.learners[USECASE.recipes[0]].examples_learnt) == (COUNT, COUNT)


def test_a_label_that_is_not_known_yet_is_left_to_the_log(tmp_path: Path) -> None:
    """A label of the file that lies in the future will come live; one of an event in neither is counted."""
    now = int(TIMES[-1])
    past = fold(USECASE, file(tmp_path, range(COUNT)), DELAY, now, [], [Label("nobody", now, 1)])
    assert (past.labelled, past.unknown) == (COUNT - DELAY // STEP, 1)


def test_what_is_kept_is_what_workers_go_on_from(tmp_path: Path) -> None:
    """Each entity is in its partition, offsets are where the reading ended, and what comes again is known there."""

    async def scenario() -> None:
        past: Past = fold(USECASE, file(tmp_path, range(COUNT)), DELAY, int(TIMES[-1]) + DELAY, [], [])
        names = TOPICS.events.name, TOPICS.labels.name, TOPICS.hops[0].name
        read = Log(dict(zip(names, ([10, 20], [5, 0], [7, 8]), strict=True)))
        store = MemoryStateStore()
        announced: list[int] = []
        assert await keep(store, USECASE, TOPICS, past.pipeline, read, lambda: announced.append(1)) == 7 + 3
        for stage, ends, table in zip(USECASE.features.stages, ([10, 20], [7, 8]), states(past.pipeline), strict=True):
            found: dict[bytes, bytes] = {}
            for partition in range(PARTITIONS):
                name = USECASE.states(stage, partition)
                claim = await store.claim(name)
                assert claim.checkpoint is not None
                assert claim.checkpoint.offset == ends[partition]
                kept = await store.load(name, claim.epoch, list(table))
                found |= {key: state for key, state in zip(table, kept, strict=True) if state is not None}
            assert found == table
        gate = Gate(PARTITIONS, Marks.from_bytes(claim.checkpoint.marks, 2 * PARTITIONS))
        again = _rows([FROM_EVENTS, FROM_EVENTS, FROM_LABELS, FROM_LABELS], [0, 1, 0, 1], [9, 20, 4, 0])
        assert gate.receive(again).source_offsets.tolist() == [20, 0]
        with pytest.raises(AlreadyThere, match=r"fraud\.v2"):
            await keep(store, USECASE, TOPICS, past.pipeline, read, lambda: announced.append(2))
        assert announced == [1]  # a model is not put over the one of a learner at work

    asyncio.run(scenario())


def _rows(topics: list[int], partitions: list[int], offsets: list[int]) -> HopRows:
    n = len(offsets)
    zeros = np.zeros(n, np.int64)
    kinds = np.array([EVENT if topic == FROM_EVENTS else 1 for topic in topics], np.int8)
    texts = tuple(list(repeat("x", n)) for _ in range(3))
    places = np.array(topics), np.array(partitions), np.array(offsets)
    return HopRows(kinds, *places, zeros, zeros, np.zeros((n, 3)), zeros, texts)


def test_a_wrong_file_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What is no file ends before anything is asked of a server."""
    assert door.main(["fraud", "--input", str(tmp_path / "none.parquet")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
