"""The handbook's file is refused in a line before anything is done with it."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.quality import __main__ as quality
from tests.quality import book, handbook, recipes

HANDBOOK = {name: np.arange(3) for name in book.NEEDED}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("none.parquet", None, ""),
        (".", None, ": it is no Parquet file"),
        ("junk.parquet", b"junk", ": it is no Parquet file"),
        ("other.parquet", HANDBOOK | {"TX_AMOUNT": None}, ": it has no column TX_AMOUNT"),
        ("empty.parquet", {name: values[:0] for name, values in HANDBOOK.items()}, ": it has no rows"),
    ],
)
def test_a_file_that_is_not_the_handbooks_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: bytes | dict[str, "np.typing.NDArray[np.int64] | None"] | None,
    reason: str,
) -> None:
    """By every command, with exit code 2; one with its columns and rows is not."""
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        pq.write_table(pa.table({name: values for name, values in content.items() if values is not None}), path)
    said = f"the handbook's transactions are not at {path} (set HEADRACE_HANDBOOK){reason}"
    assert book.refusal(path) == said
    monkeypatch.setattr(book, "refusal", lambda: said)
    for command in (quality, recipes, handbook):
        monkeypatch.setattr("sys.argv", ["quality", *(["scores.parquet"] if command is handbook else [])])
        assert command.main() == 2
        assert capsys.readouterr().err == f"{said}\n"


def test_the_handbooks_columns_and_a_row_are_enough(tmp_path: Path) -> None:
    """Nothing is said then."""
    pq.write_table(pa.table(HANDBOOK), tmp_path / "transactions.parquet")
    assert book.refusal(tmp_path / "transactions.parquet") == ""
