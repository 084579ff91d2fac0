"""The arguments of the tools that take text: UTF-8, from the shell and from files."""

from collections.abc import Callable
from pathlib import Path

import pytest

from services.lists.__main__ import main as lists
from services.models.__main__ import main as models
from streams.arguments import spelt_out

ADD, PROMOTE = ["add", "block", "customer"], ["promote", "logistic"]


@pytest.mark.parametrize("given", ["c\udcff", "@latin", "@missing"], ids=ascii)
@pytest.mark.parametrize(
    ("main", "arguments"),
    [(lists, ADD), (lists, [*ADD, "c1", "--reason"]), (models, ["show"]), (models, [*PROMOTE, "--reason"])],
)
def test_what_is_no_text_is_refused(
    main: Callable[[list[str]], int],
    arguments: list[str],
    given: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A last line that says which argument it was, and exit code 2, before any server is asked."""
    monkeypatch.chdir(tmp_path)
    Path("latin").write_bytes(b"c1\nc\xff\n")
    with pytest.raises(SystemExit) as ended:
        main(["fraud", *arguments, given])
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    why = "No such file or directory" if given == "@missing" else "is not UTF-8"
    assert ascii(given).strip("'") in said
    assert said.endswith(why)


def test_a_file_stands_for_its_lines(tmp_path: Path) -> None:
    """In its place, as they are: a line that begins with an @ is a line."""
    (tmp_path / "ids").write_text("c1\nmüller\n@c2\n", encoding="utf-8")
    found = spelt_out(["a", f"@{tmp_path / 'ids'}", "b"], pytest.fail)
    assert found == ["a", "c1", "müller", "@c2", "b"]
