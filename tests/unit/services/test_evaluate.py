"""Evaluation: the measures are the field's, a period and in total, and a file that says nothing is refused."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.evaluate import __main__ as command
from services.evaluate import measures
from services.evaluate.scored import DAY, Scored, read
from streams.models.evaluation import calibration_bins, calibration_error, card_precision
from streams.stores.columns import LATEST_MS

BEGIN = 1_700_000_000_000 // DAY * DAY
PNG = b"\x89PNG\r\n"


def columns(rows: int = 4_000, days: int = 20, seed: int = 3) -> dict[str, Any]:
    """Scores that are calibrated, of events of 300 customers over some days, and decisions by two thresholds."""
    rng = np.random.default_rng(seed)
    scores = rng.beta(0.2, 2.0, rows)
    return {
        "event_time": BEGIN + np.sort(rng.integers(0, days * DAY, rows)),
        "label": (rng.random(rows) < scores).astype(np.int8),
        "score": scores,
        "decision": np.array(["approve", "review", "decline"])[np.searchsorted([0.2, 0.6], scores, "right")],
        "customer_id": [f"c{i}" for i in rng.integers(0, 300, rows)],
    }


def write(folder: Path, given: dict[str, Any]) -> Path:
    path = folder / "scores.parquet"
    pq.write_table(pa.table(given), path)
    return path


def obvious_average_precision(labels: list[int], scores: list[float]) -> float:
    """Sum precision times gained recall, threshold by threshold."""
    value, before = 0.0, 0
    for threshold in sorted(set(scores), reverse=True):
        alarmed = [label for label, score in zip(labels, scores, strict=True) if score >= threshold]
        value += (sum(alarmed) - before) / sum(labels) * sum(alarmed) / len(alarmed)
        before = sum(alarmed)
    return value


def test_the_measures_are_what_counting_says(tmp_path: Path) -> None:
    """AUC over all pairs, average precision threshold by threshold, log loss term by term, alarms by counting."""
    given = columns(300)
    scored = read(write(tmp_path, given))
    whole = measures.measure(scored, BEGIN, 10)
    labels, scores = given["label"].tolist(), given["score"].tolist()
    right = [s for s, label in zip(scores, labels, strict=True) if label]
    wrong = [s for s, label in zip(scores, labels, strict=True) if not label]
    assert whole.auc == pytest.approx(np.mean([(a > b) + (a == b) / 2 for a in right for b in wrong]))
    assert whole.average_precision == pytest.approx(obvious_average_precision(labels, scores))
    assert whole.log_loss == pytest.approx(-np.mean(np.log([*right, *(1 - s for s in wrong)])))
    for alarms, least in zip(whole.alarms, (0.2, 0.6), strict=True):
        hits, given_ = sum(s >= least for s in right), sum(s >= least for s in scores)
        assert (alarms.alarms, alarms.precision, alarms.recall) == (given_, hits / given_, hits / len(right))
        assert alarms.f1 == pytest.approx(2 * hits / (given_ + len(right)))


def test_a_threshold_takes_the_place_of_the_decisions(tmp_path: Path) -> None:
    """The threshold itself is alarmed, and no column of decisions is needed."""
    given = columns(300)
    del given["decision"]
    scored = read(write(tmp_path, given), threshold=float(given["score"][7]))
    assert list(scored.alarms) == ["alarm"]
    assert scored.alarms["alarm"].tolist() == (given["score"] >= given["score"][7]).tolist()


def test_events_are_judged_in_time_order_whatever_the_files(tmp_path: Path) -> None:
    """A file in another order has the same events in the same periods."""
    given = columns(300)
    mixed = np.random.default_rng(1).permutation(300)
    one = read(write(tmp_path, given))
    other = read(write(tmp_path, {name: np.asarray(column)[mixed] for name, column in given.items()}))
    for a, b in zip(measures.periods(one, 7 * DAY), measures.periods(other, 7 * DAY), strict=True):
        assert measures.measure(a[1], a[0], 10) == measures.measure(b[1], b[0], 10)


def scored_at(*times: int) -> Scored:
    """Return events at `times`, ms from BEGIN."""
    n = len(times)
    return Scored(np.array(times) + BEGIN, np.ones(n, np.int8), np.full(n, 0.5), {"alarm": np.ones(n, np.bool_)}, None)


def test_periods_begin_with_the_day_of_the_first_event() -> None:
    """Every event is in the one period that its time falls in; periods without events are not there."""
    #  0h        12h   24h                  48h           72h    a period: 2 days
    #  [----------a-----b--------------------)[-----------…)[-c--
    found = list(measures.periods(scored_at(DAY // 2, DAY, 5 * DAY), 2 * DAY))
    assert [begin - BEGIN for begin, _ in found] == [0, 4 * DAY]
    assert [(part.times - BEGIN).tolist() for _, part in found] == [[DAY // 2, DAY], [5 * DAY]]


def test_calibration_error_is_that_of_bins_of_equal_mass() -> None:
    """Calibrated scores have next to none, scores that say double what comes have half of what they say."""
    rng = np.random.default_rng(1)
    rates = rng.uniform(0, 0.5, 200_000)
    labels = (rng.random(rates.size) < rates).astype(np.int8)
    assert calibration_error(rates, labels) < 0.005
    assert calibration_error(2 * rates, labels) == pytest.approx(rates.mean(), rel=0.02)
    bins = calibration_bins(rates, labels)
    assert bins.counts.tolist() == [10_000] * 20
    assert np.average(bins.observed, weights=bins.counts) == pytest.approx(labels.mean())


def test_equal_scores_share_a_bin() -> None:
    """A constant score is one bin, however many are asked for, and its order in the file says nothing."""
    labels = np.array([1] * 10 + [0] * 90, np.int8)
    bins = calibration_bins(np.full(100, 0.3), labels)
    assert (bins.predicted.tolist(), bins.observed.tolist(), bins.counts.tolist()) == (
        [pytest.approx(0.3)],
        [0.1],
        [100],
    )


def obvious_card_precision(days: Any, cards: Any, scores: Any, labels: Any, k: int) -> float:
    """Day by day, card by card, from lists."""
    rows = list(zip(days.tolist(), cards.tolist(), scores.tolist(), labels.tolist(), strict=True))
    found: set[int] = set()
    shares = []
    for day in sorted(set(days.tolist())):
        today = [row for row in rows if row[0] == day and row[1] not in found]
        highest = {card: max(row[2] for row in today if row[1] == card) for card in {row[1] for row in today}}
        top = sorted(highest, key=lambda card: -highest[card])[:k]
        hits = {card for card in top if any(row[3] for row in today if row[1] == card)}
        shares.append(len(hits) / k)
        found |= hits
    return sum(shares) / len(shares)


@pytest.mark.parametrize("k", [1, 5, 40])
def test_card_precision_is_what_going_through_the_days_says(k: int) -> None:
    """The k cards with the highest score of the day, those found left out of the later days."""
    rng = np.random.default_rng(k)
    days, cards = rng.integers(0, 12, 800), rng.integers(0, 30, 800)
    scores = rng.random(800)
    labels = (rng.random(800) < scores / 8).astype(np.int8)
    value = card_precision(days, cards, scores, labels, k)
    assert value == pytest.approx(obvious_card_precision(days, cards, scores, labels, k))
    assert 0 < value < 1


def test_the_total_is_not_blinded_by_what_was_found_in_earlier_periods(tmp_path: Path) -> None:
    """Card precision in total is the mean over the days of the periods, each with all its cards."""
    scored = read(write(tmp_path, columns()))
    parts = [measures.measure(part, begin, 5) for begin, part in measures.periods(scored, 7 * DAY)]
    assert [part.days for part in parts] == [7, 7, 6]
    expected = sum(part.card_precision * part.days for part in parts) / 20
    assert measures.total(scored, parts, 5).card_precision == pytest.approx(expected)


def test_the_command_prints_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line a period and one in total; four pictures; one page that holds them and asks no other address."""
    path = write(tmp_path, columns())
    assert command.main(["--scores", str(path), "-k", "5"]) == 0
    out = capsys.readouterr().out
    assert re.search(
        r"^from \(UTC\) +events +positive +AUC +AP +log loss +ECE +CP@5 +precision +recall +F1$", out, re.M
    )
    assert len(re.findall(r"^2023-11-\d\d|^2023-12-\d\d", out, re.M)) == 3
    assert re.search(r"^total +4,000 ", out, re.M)
    assert re.search(r"^decline +\d", out, re.M)
    folder = tmp_path / "scores.evaluation"
    names = {"roc.png", "precision_recall.png", "calibration.png", "over_time.png"}
    assert {file.name for file in folder.iterdir()} == names | {command.PAGE}
    assert all((folder / name).read_bytes().startswith(PNG) for name in names)
    page = (folder / command.PAGE).read_text("utf-8")
    assert page.count("data:image/png;base64,") == 4
    assert not re.search(r"https?:|(src|href)=\"(?!data:)", page)
    assert re.search(r"<tr class=total><td>total</td><td>4,000</td>", page)


def test_only_the_time_asked_for_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the moment of --since on and before that of --until, the zone being UTC."""
    given = columns(12, days=1)
    given["event_time"] = BEGIN + np.arange(12) * DAY // 4  # 00:00, 06:00, …
    given["label"][:] = [0, 1] * 6
    arguments = ["--since", "2023-11-14T06:00", "--until", "2023-11-15", "--threshold", "0.5"]
    assert command.main(["--scores", str(write(tmp_path, given)), *arguments]) == 0
    assert re.search(r"^total +3 +2 ", capsys.readouterr().out, re.M)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"label": None}, "has no column label (it has event_time, score, decision, customer_id)"),
        (
            {"decision": None},
            "has no column decision (it has event_time, label, score, customer_id); give a --threshold",
        ),
        (
            {"event_time": (BEGIN + np.arange(50)) * 1000},
            "row 1, column event_time: lies after the year 2999: it is to be in milliseconds",
        ),
        ({"label": np.zeros(50, np.int8)}, "none of its 50 events is labelled 1"),
        ({"label": np.ones(50, np.int8)}, "none of its 50 events is labelled 0"),
        ({"label": np.full(50, 2)}, "row 1, column label: is neither 0 nor 1"),
        ({"score": np.append(np.full(49, 0.5), np.nan)}, "row 50, column score: is not a finite number"),
        ({"score": np.append(np.full(49, 0.5), 1.5)}, "row 50, column score: is more than 1"),
        ({"decision": ["approve"] * 49 + ["maybe"]}, "row 50, column decision: is none of approve, review, decline"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], reason: str
) -> None:
    """One line with file, row, column and reason, exit code 2, and nothing written."""
    given = {name: column for name, column in (columns(50) | change).items() if column is not None}
    path = write(tmp_path, given)
    assert command.main(["--scores", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}: {reason}")
    assert error.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("entity", ["label", "decision", "event_time", "score", "event_id", "nothing", "risk"])
def test_what_is_no_entity_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], entity: str) -> None:
    """What the backtest says of an event is none, a feature neither; those that are there are named."""
    own = {"event_id": [f"e{i}" for i in range(50)], "terminal_id": ["t"] * 50, "risk": [0.5] * 50}
    path = write(tmp_path, columns(50) | own)
    assert command.main(["--scores", str(path), "--entity", entity]) == 2
    refused = f"error: {path}: --entity: '{entity}' is none of its ids (customer_id, terminal_id)\n"
    assert capsys.readouterr().err == refused
    assert command.main(["--scores", str(path), "--entity", "terminal_id"]) == 0


def test_a_file_without_rows_or_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No rows, no such file, no Parquet, none in the time asked for: each says which."""
    empty = write(tmp_path, {name: np.asarray(column)[:0] for name, column in columns(5).items()})
    assert command.main(["--scores", str(empty)]) == 2
    assert "has no rows" in capsys.readouterr().err
    assert command.main(["--scores", str(tmp_path / "nowhere.parquet")]) == 2
    assert "nowhere.parquet: cannot be read: No such file" in capsys.readouterr().err
    (tmp_path / "text.parquet").write_text("event_time,label,score")
    assert command.main(["--scores", str(tmp_path / "text.parquet")]) == 2
    assert "text.parquet: is not a Parquet file" in capsys.readouterr().err
    assert command.main(["--scores", str(write(tmp_path, columns(50))), "--since", "2030-01-01"]) == 2
    assert "has no events in the time asked for" in capsys.readouterr().err


def test_the_last_moment_that_can_be_shown_is_judged(tmp_path: Path) -> None:
    """From the first year that there is to the last."""
    given = columns(50) | {"event_time": [0, *[LATEST_MS] * 49]}
    assert command.main(["--scores", str(write(tmp_path, given)), "--period", "3650d"]) == 0


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file where the folder should be: one line, no traceback."""
    path = write(tmp_path, columns(500))
    assert command.main(["--scores", str(path), "--output", str(path)]) == 2
    assert f"error: {path}: cannot be written: File exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        (["--period", "a week"], "--period: 'a week': must be a duration"),
        (["--threshold", "nan"], "--threshold: 'nan': must be a number from 0 to 1"),
        (["--since", "monday"], "--since: 'monday': must be a date"),
        (["-k", "0"], "-k: '0': must be a whole number above 0"),
    ],
)
def test_a_wrong_option_is_named(capsys: pytest.CaptureFixture[str], option: list[str], reason: str) -> None:
    """A wrong option ends with what it must be."""
    with pytest.raises(SystemExit) as error:
        command.main(["--scores", "a", *option])
    assert error.value.code == 2
    assert reason in capsys.readouterr().err


def test_the_door_shows_no_traceback(tmp_path: Path) -> None:
    """From the shell: one line and exit code 2."""
    done = subprocess.run(
        [sys.executable, "-m", "services.evaluate", "--scores", str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
