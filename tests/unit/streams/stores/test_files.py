"""Files of events: what is read, in which order, and how a wrong one is refused."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from schemas.events import Transaction
from streams.stores import files
from streams.usecases import FRAUD

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
NOON_MS = int(NOON.timestamp() * 1000)
GOOD = {
    "event_id": ["a", "b", "c"],
    "event_time": [NOON_MS, NOON_MS + 1, NOON_MS + 2],
    "customer_id": ["007", "1", "007"],
    "terminal_id": ["t", "t", "u"],
    "amount": [1.5, -2.0, 3.0],
    "label": [0, 1, 0],
}


@pytest.fixture(params=["events.parquet", "events.csv"])
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Write columns to a file of either kind and return its path."""

    def to_file(columns: dict[str, Any]) -> Path:
        path = tmp_path / request.param
        module = pyarrow.parquet.write_table if path.suffix == ".parquet" else pyarrow.csv.write_csv
        module(pa.table(columns), str(path))
        return path

    return to_file


def refused(path: Path, columns: dict[str, str] | None = None, **options: Any) -> str:
    """Return the message of the error, without the path."""
    with pytest.raises(files.FileError) as error:
        files.read(path, FRAUD, columns or {}, **options)
    return str(error.value).removeprefix(f"{path}: ")


def test_columns_become_events(write: Any) -> None:
    """Every field and label comes back as it is in the file; an id of 007 stays 007."""
    events = files.read(write({**GOOD, "country": ["DE", None, "FR"]}), FRAUD, {})
    assert events.event_ids == ["a", "b", "c"]
    assert events.times.tolist() == GOOD["event_time"]
    assert events.values.tolist() == [[1.5], [-2.0], [3.0]]
    assert events.keys("customer_id") == [b"007", b"1", b"007"]
    assert events.labels is not None
    assert events.labels.tolist() == [0, 1, 0]
    assert events.structs()[1] == Transaction("b", NOON_MS + 1, "1", "t", -2.0)
    assert events.structs()[2].country == "FR"


def test_columns_are_mapped(write: Any) -> None:
    """A field may be called anything in the file, and integers are good ids."""
    columns = {"ID": [7, 8, 9], "FRAUD": [1, 1, 0]} | {k: v for k, v in GOOD.items() if k not in {"event_id", "label"}}
    events = files.read(write(columns), FRAUD, files.mapping("event_id=ID, label=FRAUD"))
    assert events.event_ids == ["7", "8", "9"]
    assert events.labels is not None
    assert events.labels.tolist() == [1, 1, 0]


@pytest.mark.parametrize("nulls", [pa.nulls(3), pa.nulls(3, pa.string()).dictionary_encode()], ids=["null", "string"])
def test_an_optional_column_of_nulls_is_absent(tmp_path: Path, nulls: Any) -> None:
    """Also where the file has no type for it, as pandas writes it; where a value must be, the first is missing."""
    path = tmp_path / "events.parquet"
    pyarrow.parquet.write_table(pa.table({**GOOD, "currency": nulls}), str(path))
    assert [event.currency for event in files.read(path, FRAUD, {}).structs()] == [None] * 3
    pyarrow.parquet.write_table(pa.table({**GOOD, "customer_id": nulls}), str(path))
    assert refused(path) == "row 1, column customer_id: is missing"


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC"])
def test_timestamps_are_utc(write: Any, unit: str, zone: str | None) -> None:
    """A timestamp of any unit, with or without zone, is the same instant."""
    stamps = pa.array([NOON.replace(tzinfo=None)] * 3, pa.timestamp(unit, zone))
    assert files.read(write({**GOOD, "event_time": stamps}), FRAUD, {}).times.tolist() == [NOON_MS] * 3


def test_rows_come_in_time_order(write: Any) -> None:
    """Rows are sorted by time, labels with them, and rows of one time stay in the file's order."""
    later = {**GOOD, "event_time": [NOON_MS + 5, NOON_MS, NOON_MS], "label": [1, 0, 1]}
    events = files.read(write(later), FRAUD, {})
    assert events.event_ids == ["b", "c", "a"]
    assert events.labels is not None
    assert events.labels.tolist() == [0, 1, 1]


def test_labels_may_be_absent(write: Any) -> None:
    """A file without a label column has events all the same."""
    assert files.read(write({k: v for k, v in GOOD.items() if k != "label"}), FRAUD, {}).labels is None


def test_slices_are_the_whole(write: Any) -> None:
    """The slices of the events, one after the other, are the events; the head is their beginning."""
    events = files.read(write(GOOD), FRAUD, {})
    slices = list(events.slices(2))
    assert [len(part) for part in slices] == [2, 1]
    assert [one for part in slices for one in part.structs()] == events.structs()
    assert np.concatenate([part.labels for part in slices if part.labels is not None]).tolist() == [0, 1, 0]
    assert events.head(1).structs() == events.structs()[:1]


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("amount", [1.0, float("nan"), 1.0], "row 2, column amount: is not a finite number"),
        ("amount", [1.0, 1.0, float("-inf")], "row 3, column amount: is not a finite number"),
        ("amount", [1.0, None, 1.0], "row 2, column amount: is missing"),
        ("amount", [1.0, 1.0, 2e12], "row 3, column amount: is more than 1e+12"),
        ("amount", ["1", "2", "three"], "row 3, column amount: is not a number"),
        ("event_id", ["a", "b", "a"], "row 3, column event_id: repeats the id of row 1"),
        ("event_id", ["a", None, "c"], "row 2, column event_id: is missing"),
        ("customer_id", ["a", "b" * 129, "c"], "row 2, column customer_id: has more than 128 characters"),
        ("event_time", [1, -1, 1], "row 2, column event_time: is less than 0"),
        ("event_time", [1, 2, NOON_MS + 1000], "row 3, column event_time: lies in the future"),
        (
            "event_time",
            [NOON_MS * 1000, 2, 3],
            "row 1, column event_time: lies after the year 2999: it is to be in milliseconds",
        ),
        (
            "event_time",
            ["2024-05-01", "soon", "2024-05-01"],
            "row 2, column event_time: is not such a time as the first",
        ),
        ("event_time", ["soon", "1", "1"], "row 1, column event_time: is neither a timestamp nor integer milliseconds"),
        ("label", [0, 1, 2], "row 3, column label: is neither 0 nor 1"),
        ("label", [0, None, 1], "row 2, column label: is missing"),
        ("label", ["0", "1", "yes"], "row 3, column label: is not a label (0 or 1)"),
        ("device", [None, "x" * 65, "y"], "row 2, column device: has more than 64 characters"),
    ],
)
def test_a_wrong_value_is_named(write: Any, column: str, values: list[Any], message: str) -> None:
    """An error names the data row, counted from 1, and the column."""
    assert refused(write({**GOOD, column: values}), latest=NOON_MS + 100) == message


def test_a_time_beyond_64_bits_is_named(tmp_path: Path) -> None:
    """Parquet has unsigned numbers that no time can be."""
    path, times = tmp_path / "events.parquet", pa.array([1, 2, 2**63], pa.uint64())
    pyarrow.parquet.write_table(pa.table({**GOOD, "event_time": times}), str(path))
    assert refused(path) == "row 3, column event_time: is not a time in milliseconds, it is too large"


def test_the_column_is_named_as_the_file_spells_it(write: Any) -> None:
    """With a mapping the error speaks of the file's column, not of the field."""
    columns = {"TX_AMOUNT": [1.0, float("nan"), 0.0]} | {k: v for k, v in GOOD.items() if k != "amount"}
    message = refused(write(columns), {"amount": "TX_AMOUNT"})
    assert message == "row 2, column TX_AMOUNT: is not a finite number"


def test_a_missing_column_is_named(write: Any) -> None:
    """A required field without a column is an error, and so is a mapped column that is not there."""
    without = {k: v for k, v in GOOD.items() if k != "amount"}
    assert refused(write(without)).startswith("has no column amount for amount (it has event_id,")
    assert refused(write(GOOD), {"country": "LAND"}).startswith("has no column LAND for country")


def test_an_unknown_field_is_named(tmp_path: Path) -> None:
    """A mapping to what is no field of the event is refused."""
    assert refused(tmp_path / "any", {"colour": "X"}).startswith("--columns: 'colour' is none of event_id,")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "cannot be read: No such file or directory"),
        ("junk.parquet", b"junk", "is not a Parquet file"),
        ("cut.parquet", b"PAR1 and no footer", "cannot be read: "),
        ("junk.csv", b"\xff\xfe\x00\x81", "is neither a Parquet nor a CSV file"),
        ("empty.csv", b"", "has no column event_id"),
        ("header.csv", b"event_id,event_time,customer_id,terminal_id,amount\n", "has no rows"),
        ("short.csv", b"event_id,event_time,customer_id,terminal_id,amount\na,1,c,t,1\nb,1\n", "row 2: has 2 columns"),
        ("twice.csv", b"event_id,event_id,event_time,customer_id,terminal_id,amount\n", "has column event_id twice"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    """What is no file of events is refused in one line."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    said = refused(path)
    assert said.startswith(message)
    assert "\n" not in said


@pytest.mark.parametrize("text", ["event_id", "=A", "a=", "a=1,b"])
def test_a_wrong_mapping_is_refused(text: str) -> None:
    """A mapping is made of field=COLUMN."""
    with pytest.raises(ValueError, match="must be field=COLUMN"):
        files.mapping(text)


@pytest.mark.parametrize("text", ["7", "0s", "-1d", "d", "1 week"])
def test_a_wrong_duration_is_refused(text: str) -> None:
    """A duration has a unit and is more than nothing."""
    with pytest.raises(ValueError, match="must be a duration above 0"):
        files.milliseconds(text)
