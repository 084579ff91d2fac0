"""The list tool at its door: wrong arguments and an absent Kafka are told in a line."""

import pytest

from services.lists.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add", "grey", "customer", "c1"], "grey"),
        (["add", "block", "device", "d1"], "fraud has customer, terminal"),
        (["remove", "device", "d1"], "fraud has customer, terminal"),
        (["add", "block", "customer", ""], "1 to 128 characters"),
        (["add", "block", "customer", "c" * 129], "1 to 128 characters"),
        (["add", "block", "customer"], "ID"),
        (["add", "block", "customer", "c1", "--reason", "x" * 1001], "1000 characters"),
        ([], "add|remove|show"),
    ],
    ids=["list", "entity", "entity to remove", "empty id", "long id", "no id", "long reason", "no command"],
)
def test_wrong_arguments_end_it(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and what was wrong, before any server is asked."""
    with pytest.raises(SystemExit) as ended:
        main(["fraud", *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["show"], ["add", "block", "customer", "c1"], ["remove", "customer", "c1"]])
def test_an_absent_kafka_is_named(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line with the address, exit code 1."""
    monkeypatch.setenv("HEADRACE_KAFKA", "127.0.0.1:1")
    monkeypatch.setattr("streams.runtime.topics.REACH_MS", 500)
    assert main(["fraud", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: Kafka at 127.0.0.1:1")
