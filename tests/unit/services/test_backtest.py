"""The backtest: what the streams would have said, label by label when it was due, or no file at all."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.backtest import __main__ as command
from services.backtest.output import table, whole_file
from services.backtest.run import Scored, backtest
from streams.models.recipes import RECIPES
from streams.stores import files
from streams.usecases import FRAUD
from tests.quality import book, handbook

HOUR, DAY = 3_600_000, 86_400_000
BEGIN = 1_700_000_000_000 // DAY * DAY
NAMES = FRAUD.features.names


def columns(rows: int = 600, days: int = 6, seed: int = 5) -> dict[str, Any]:
    """Transactions of 20 customers at 10 terminals, of which two are fraudulent for large amounts; some tie."""
    rng = np.random.default_rng(seed)
    times = BEGIN + np.sort(rng.integers(0, days * DAY // 60_000, rows)) * 60_000
    terminals, amounts = rng.integers(0, 10, rows), rng.exponential(50, rows).round(2)
    return {
        "event_id": [f"e{i}" for i in range(rows)],
        "event_time": times,
        "customer_id": [f"c{i}" for i in rng.integers(0, 20, rows)],
        "terminal_id": [f"t{i}" for i in terminals],
        "amount": amounts,
        "label": ((terminals < 2) & (amounts > 30)).astype(np.int8),
    }


@pytest.fixture
def events(tmp_path: Path) -> files.Events:
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table(columns()), path)
    return files.read(path, FRAUD, {})


def run(events: files.Events, delay: int = DAY, refresh: int = HOUR) -> Scored:
    return backtest(events, delay, refresh, lambda rows: None)


def slow_scores(events: files.Events, features: np.ndarray, delay: int, refresh: int) -> Iterator[float]:
    """Score event by event through River, having learnt what was due when the event's slice began."""
    model, waiting = RECIPES[FRAUD.recipes[0]].make(NAMES), 0
    rows = [dict(zip(NAMES, row, strict=True)) for row in features.tolist()]
    for row, time in zip(rows, events.times.tolist(), strict=True):
        while events.times[waiting] + delay < time // refresh * refresh:
            model.learn_one(rows[waiting], bool(events.labels[waiting]))
            waiting += 1
        yield model.predict_proba_one(row)[True]


@pytest.mark.parametrize(("delay", "refresh"), [(DAY, HOUR), (90_000, 10 * 60_000), (3 * DAY, 7 * HOUR)])
def test_scores_are_those_of_one_event_at_a_time(events: files.Events, delay: int, refresh: int) -> None:
    """Slices, arrays and compiled scores change nothing: a loop over River says the same."""
    scored = run(events, delay, refresh)
    np.testing.assert_allclose(
        scored.raw, list(slow_scores(events, scored.features, delay, refresh)), rtol=0, atol=1e-12
    )


def test_features_do_not_depend_on_the_slices(events: files.Events) -> None:
    """Slices of a minute or of all days: the same bits."""
    assert (run(events, refresh=60_000).features == run(events, refresh=30 * DAY).features).all()


def test_no_label_is_known_before_it_is_due(events: files.Events) -> None:
    """Turning every label that is due after a moment changes no score and no feature up to that moment."""
    moment = BEGIN + 3 * DAY
    late = events.times + DAY > moment
    turned = replace(events, labels=np.where(late, 1 - events.labels, events.labels).astype(np.int8))
    past, scored, other = events.times <= moment, run(events), run(turned)
    assert (scored.scores[past] == other.scores[past]).all()
    assert (scored.features[past] == other.features[past]).all()
    assert (scored.scores[~past] != other.scores[~past]).any()


def test_a_label_on_the_very_moment_of_an_event_is_known(events: files.Events) -> None:
    """Labels come before events of the same time: a terminal's window includes it."""
    #                 e1          e2 = e1 + delay
    #  labels          .           1
    tied = replace(
        events.head(2),
        columns={
            **events.head(2).columns,
            "event_time": pa.array([BEGIN, BEGIN + DAY]),
            "terminal_id": pa.array(["t", "t"]),
        },
    )
    counts = run(tied).features[:, NAMES.index("terminal_label_count_1d")]
    assert counts.tolist() == [0.0, 1.0]


def test_model_ids_say_what_was_learnt(events: files.Events) -> None:
    """A model's number is that of the labels due before its slice; the unlearnt one is 0."""
    rows = table(events, run(events)).to_pylist()
    for row in rows:
        begin = row["event_time"] // HOUR * HOUR
        assert row["model_id"] == f"{FRAUD.recipes[0]}@{np.count_nonzero(events.times + DAY < begin)}"
    assert rows[0]["model_id"] == f"{FRAUD.recipes[0]}@0"


def test_the_file_has_every_column(events: files.Events) -> None:
    """Id, time, entities, label, scores, decision, model, then the features; decisions are the policy's."""
    scored = run(events)
    rows = table(events, scored)
    entities = ["customer_id", "terminal_id"]
    assert rows.column_names == [
        "event_id",
        "event_time",
        *entities,
        "label",
        "score",
        "raw_score",
        "decision",
        "model_id",
        *NAMES,
    ]
    assert all(rows[name].combine_chunks() == events.columns[name] for name in entities)
    assert rows["event_id"].to_pylist() == events.event_ids
    for name, column in zip(NAMES, scored.features.T, strict=True):
        assert (rows[name].to_numpy() == column).all()
    assert rows["decision"].to_pylist() == FRAUD.verdicts.decide(scored.features, scored.scores)


def call(tmp_path: Path, given: dict[str, Any], *options: str) -> tuple[int, Path]:
    source, target = tmp_path / "in.parquet", tmp_path / "out" / "scores.parquet"
    target.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(given), source)
    return command.main(["fraud", "--input", str(source), "--output", str(target), *options]), target


def test_the_command_writes_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A good file gives its scores, columns under other names included, and a line that says what happened."""
    given = columns()
    given["ID"] = given.pop("event_id")
    code, target = call(tmp_path, given, "--columns", "event_id=ID", "--label-delay", "1d", "--refresh", "10m")
    assert code == 0
    assert pq.read_table(target).num_rows == 600
    assert [path.name for path in target.parent.iterdir()] == ["scores.parquet"]
    assert "600 events scored" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("column", "row", "value"),
    [("amount", 7, np.nan), ("label", 3, 2), ("event_id", 9, "e0"), ("event_time", 2, -5)],
)
def test_a_wrong_row_is_named_and_nothing_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], column: str, row: int, value: Any
) -> None:
    """Row and column on one line, a non-zero exit, and an earlier output stays as it was."""
    given = columns(20)
    given[column][row] = value
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "scores.parquet").write_text("earlier")
    code, target = call(tmp_path, given)
    error = capsys.readouterr().err
    assert code == 2
    assert f"row {row + 1}, column {column}" in error
    assert error.count("\n") == 1
    assert [path.read_text() for path in target.parent.iterdir()] == ["earlier"]


def test_labels_are_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without labels there is nothing to learn: refused by name."""
    given = columns(20)
    del given["label"]
    code, target = call(tmp_path, given)
    assert code == 2
    assert "no column label" in capsys.readouterr().err
    assert not list(target.parent.iterdir())


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is not there is said before the work is done."""
    pq.write_table(pa.table(columns(20)), tmp_path / "in.parquet")
    target = tmp_path / "nowhere" / "scores.parquet"
    assert command.main(["fraud", "--input", str(tmp_path / "in.parquet"), "--output", str(target)]) == 2
    assert str(target) in capsys.readouterr().err


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    """Whatever ends the writing, what it had written is gone and what was there before stays."""
    target = tmp_path / "scores.parquet"
    target.write_text("before")

    def interrupted() -> None:
        with whole_file(target) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_regular_file_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    """A pipe and a folder are named, not replaced, also behind a link; so would be a device."""
    pq.write_table(pa.table(columns(20)), tmp_path / "in.parquet")
    target, link = tmp_path / kind, tmp_path / "link"
    os.mkfifo(target) if kind == "pipe" else target.mkdir()
    link.symlink_to(target)
    mode = target.stat().st_mode
    assert command.main(["fraud", "--input", str(tmp_path / "in.parquet"), "--output", str(link)]) == 2
    assert capsys.readouterr().err == f"error: {link}: cannot be written: it is there and is no regular file\n"
    assert (link.is_symlink(), target.stat().st_mode) == (True, mode)


def test_a_link_is_followed(tmp_path: Path) -> None:
    """The file that it names is replaced, or made, and it stays a link."""
    target, link = tmp_path / "elsewhere" / "scores.parquet", tmp_path / "link"
    target.parent.mkdir()
    link.symlink_to(target)
    for content in ("first", "second"):
        with whole_file(link) as partial:
            partial.write_text(content)
        assert link.is_symlink()
        assert [path.read_text() for path in target.parent.iterdir()] == [content]


def test_a_wrong_duration_is_refused_without_traceback() -> None:
    """From the shell: one line that names the option."""
    arguments = ["fraud", "--input", "a", "--output", "b", "--label-delay", "7 weeks"]
    command_line = [sys.executable, "-m", "services.backtest", *arguments]
    done = subprocess.run(command_line, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "--label-delay: '7 weeks'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(bool(book.refusal()), reason=book.refusal())
def test_the_features_are_the_books() -> None:
    """Over the first 300,000 of the handbook's transactions, the 14 windowed and time features are the book's,
    and a count that is off by one would be seen."""
    events = files.read(book.DATA, FRAUD, book.COLUMNS).head(300_000)
    rows = table(events, backtest(events, 7 * DAY, DAY, lambda rows: None))
    known = book.load().head(300_000)
    assert handbook.differing(known, rows) == []
    at = rows.column_names.index("terminal_label_count_7d")
    counts = rows.column(at).to_numpy().copy()
    counts[200_000] += 1
    (line,) = handbook.differing(known, rows.set_column(at, "terminal_label_count_7d", pa.array(counts)))
    assert "terminal_label_count_7d: 1 rows" in line


@pytest.mark.parametrize("recipe", RECIPES)
def test_any_recipe_can_be_asked_for(tmp_path: Path, recipe: str) -> None:
    """The model ids say whose the scores are."""
    code, target = call(tmp_path, columns(60), "--label-delay", "1d", "--recipe", recipe)
    assert code == 0
    assert pq.read_table(target)["model_id"][0].as_py() == f"{recipe}@0"
