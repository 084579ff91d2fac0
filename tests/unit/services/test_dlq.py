"""Dead letters as the tools see them: every record is read, and only what can go back whole goes back, once."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import Poison
from services.dlq import output
from services.dlq.__main__ import main
from services.dlq.letter import (
    DONE,
    PARKED,
    REPLAYED,
    UNFIT,
    WAITING,
    Letter,
    Source,
    read,
    receipt,
    standing,
)
from services.dlq.log import Choice
from services.dlq.replay import LETTERS_AT_ONCE, Replay
from streams.runtime.compression import UNREAD_BATCH
from streams.runtime.dlq import ATTEMPT, MAX_ATTEMPTS, MAX_HEADERS, MAX_KEY, MAX_VALUE, SOURCE, dead_letter
from streams.runtime.records import Header, Records
from streams.usecases import FRAUD

TOPICS = {topic.name: topic for topic in FRAUD.topics(4) if topic.name in ("fraud.transactions", "fraud.labels")}
TRACE: Header = ("trace", b"\x00\xff")


def records(*messages: tuple[bytes | None, bytes | None, Sequence[Header]], first: int = 7) -> Records:
    keys, values, headers = zip(*messages, strict=True)
    count = len(messages)
    return Records.of(keys, values, range(first, first + count), range(1000, 1000 + count), headers)


def buried(key: bytes | None, value: bytes | None, headers: Sequence[Header] = ()) -> Letter:
    """What the tools read of a record of fraud.transactions/3 that died."""
    letter = dead_letter(records((key, value, headers), first=12), 0, "fraud.transactions", 3, Poison("invalid", "why"))
    read_again = read(records((letter.key, letter.value, letter.headers)), 0)
    assert isinstance(read_again, Letter)
    return read_again


def test_a_letter_is_what_died() -> None:
    """Key, value and headers as they came, beside where, when and why."""
    assert buried(b"\xffkey", b"{\x00", [TRACE, ("none", None), TRACE]) == Letter(
        offset=7,
        time=1000,
        key=b"\xffkey",
        value=b"{\x00",
        headers=(TRACE, ("none", None), TRACE),
        reason="invalid",
        message="why",
        source=Source("fraud.transactions", 3, 12),
        attempt=1,
    )


def test_a_letter_that_dies_again_counts_on() -> None:
    """It goes back with its attempts and its own headers, and comes as the same letter with one attempt more."""
    first = buried(b"k", b"v", [TRACE])
    assert first.returning() == (TRACE, (ATTEMPT, b"1"))
    assert buried(first.key, first.value, first.returning()) == replace(first, attempt=2)


def test_headers_without_end_do_not_reset_the_attempts() -> None:
    """What is counted is counted before headers are left out."""
    headers: list[Header] = [("h", b"x" * 1000)] * (2 * MAX_HEADERS // 1000)
    assert buried(b"k", b"v", [*headers, (ATTEMPT, b"4")]).attempt == 5


headers = st.lists(
    st.tuples(st.sampled_from([REPLAYED, SOURCE, ATTEMPT, "x"]), st.none() | st.binary(max_size=30)), max_size=5
)


@given(st.none() | st.binary(max_size=20), st.none() | st.binary(max_size=20), headers)
def test_any_record_is_read(key: bytes | None, value: bytes | None, given_headers: list[Header]) -> None:
    """Anyone can write to the DLQ: nothing in it stops the tools, and every letter can be shown."""
    one = read(records((key, value, given_headers)), 0)
    if isinstance(one, Letter):
        state, why = standing(one, set(), TOPICS)
        assert state in (WAITING, PARKED, UNFIT)
        assert output.line(one, state, why).isprintable()
        json.dumps(output.facts(one, state, why) | output.content(one))
        output.page(one, state, why)
    else:
        assert all(isinstance(offset, int) for offset in one)


def test_headers_that_do_not_add_up_are_no_headers() -> None:
    """A damaged record is a letter of unknown origin."""
    sound = records((b"k", b"v", [TRACE]))
    damaged = replace(sound, header_start=sound.header_start + 5, header_count=sound.header_count + 5)
    one = read(damaged, 0)
    assert isinstance(one, Letter)
    assert (one.key, one.value, one.headers, one.source, one.reason) == (b"k", b"v", (), None, "unknown")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"fraud.transactions",
        b"fraud.transactions/1",
        b"/1/2",
        b"t/x/1",
        b"t/1/-1",
        b"t/1/2/3",
        b"t/\xb2/1",
        b"\xff",
    ],
)
def test_a_source_that_makes_no_sense_is_none(text: bytes) -> None:
    """The record does not say where it is from, so it cannot go back."""
    one = read(records((b"k", b"v", [(SOURCE, text)])), 0)
    assert isinstance(one, Letter)
    assert one.source is None
    assert standing(one, set(), TOPICS) == (UNFIT, "it does not say where it is from")


def test_a_receipt_is_read_back() -> None:
    """The offsets that were sent back; a dead event that has such a header is a letter all the same."""
    value, said = receipt([3, 8])
    assert read(records((None, value, said)), 0) == [3, 8]
    assert read(records((None, b"{", said)), 0) == []
    assert buried(None, value, said).value == value


def test_where_a_letter_stands() -> None:
    """Replayed, parked after as many attempts as the cap says, or waiting."""
    one = buried(b"k", b"v")
    assert standing(one, set(), TOPICS)[0] == WAITING
    assert standing(one, {one.offset}, TOPICS)[0] == DONE
    assert standing(replace(one, attempt=MAX_ATTEMPTS - 1), set(), TOPICS)[0] == WAITING
    assert standing(replace(one, attempt=MAX_ATTEMPTS), set(), TOPICS)[0] == PARKED


@pytest.mark.parametrize(
    ("letter", "why"),
    [
        (buried(b"k", b"v" * (MAX_VALUE + 1)), "its value was cut"),
        (buried(b"k" * (MAX_KEY + 1), b"v"), "its key was cut"),
        (buried(b"k", b"v", [("h", b"x" * MAX_HEADERS)]), "some of its headers were left out"),
        (buried(b"k", b"v", [(UNREAD_BATCH, b"lz4")]), "it is a whole batch that cannot be inflated"),
        (buried(b"k", b"v" * MAX_VALUE), "fraud.transactions takes 4194304 bytes, uncompressed"),
        (
            replace(buried(b"k", b"v"), source=Source("fraud.by-terminal", 0, 1)),
            "fraud.by-terminal is no topic that takes records back",
        ),
        (
            replace(buried(b"k", b"v"), source=Source("fraud.transactions", 4, 1)),
            "fraud.transactions has 4 partitions",
        ),
    ],
)
def test_what_cannot_go_back_as_it_came_does_not(letter: Letter, why: str) -> None:
    """A part of a record is not the record, and a place that is not there takes none."""
    if why.endswith("cut"):
        letter = replace(letter, value=b"v", key=b"k")  # its size is not the reason here
    assert standing(letter, set(), TOPICS) == (UNFIT, why)


def test_a_choice_is_all_of_its_parts() -> None:
    """Reason, topic, partition, offset and time of the burial each leave out what does not fit."""
    one = buried(b"k", b"v")
    assert Choice().fits(one)
    assert Choice("invalid", "fraud.transactions", 3, 1000, 7).fits(one)
    others = [Choice(reason="null"), Choice(topic="fraud.labels"), Choice(partition=0), Choice(since=1001)]
    assert not any(choice.fits(one) for choice in [*others, Choice(offset=8)])
    assert not Choice(partition=3).fits(replace(one, source=None))


class Outbox:
    """Takes what a replay sends; whatever is not acknowledged yet is lost if it fails."""

    def __init__(self, failing_at: int | None = None) -> None:
        self.kept: list[tuple[str, bytes | None, bytes | None, tuple[Header, ...], int | None]] = []
        self._open = list(self.kept)
        self._failing_at = failing_at

    async def send(self, topic, key, value, headers=(), partition=None) -> None:  # type: ignore[no-untyped-def]
        assert topic != "fraud.dlq" or not self._open, "a receipt before its letters are acknowledged"
        self._open.append((topic, key, value, tuple(headers), partition))

    def mark(self) -> int:
        return len(self._open)

    async def acked(self, mark: int) -> None:
        if self._failing_at is not None and len(self.kept) + mark > self._failing_at:
            raise ConnectionError
        self.kept, self._open = self.kept + self._open, []


def sent_back(letters: Sequence[Letter], outbox: Outbox, replayed: set[int] | None = None, **options: int) -> Replay:
    async def stream() -> AsyncIterator[Letter]:
        for letter in letters:
            yield letter

    limit = options.get("limit")
    replay = Replay(outbox, "fraud.dlq", TOPICS, replayed or set(), bool(options.get("force")))  # type: ignore[arg-type]
    asyncio.run(replay.run(stream(), lambda: replay.taken == limit))
    return replay


def test_a_replay_sends_letters_back_and_leaves_a_receipt() -> None:
    """To their own partition, with their bytes; then the DLQ says which they were."""
    one, outbox = buried(b"\xff", None, [TRACE, ("none", None)]), Outbox()
    replay = sent_back([one, replace(one, offset=9, attempt=3)], outbox)
    first, second, last = outbox.kept
    assert first == ("fraud.transactions", b"\xff", None, (TRACE, ("none", None), (ATTEMPT, b"1")), 3)
    assert second[3][-1] == (ATTEMPT, b"3")
    assert (last[0], last[2:4]) == ("fraud.dlq", receipt([7, 9]))
    assert replay.told() == ["2 replayed"]


def test_a_replay_leaves_alone_what_is_done_parked_or_unfit_and_says_so() -> None:
    """Only with `force` the parked ones go back; the others never do."""
    one = buried(b"k", b"v")
    letters = [
        one,
        replace(one, offset=8),
        replace(one, offset=9, attempt=MAX_ATTEMPTS),
        replace(one, offset=10, source=None),
    ]
    outbox = Outbox()
    replay = sent_back(letters, outbox, {8})
    assert replay.counts() == {"replayed": 1, "replayed_before": 1, "parked": 1, "unfit": 1}
    assert replay.told() == [
        "1 replayed",
        "1 left alone: replayed before",
        "1 left alone: parked after 5 attempts (--force sends them)",
        "1 left alone: they cannot be sent back as they came (list says why)",
    ]
    assert len(outbox.kept) == 2
    forced = sent_back(letters, Outbox(), {7, 8}, force=1)
    assert forced.counts() == {"replayed": 1, "replayed_before": 2, "parked": 0, "unfit": 1}


def test_a_limit_counts_what_is_sent() -> None:
    """What is left alone does not use it up."""
    one = buried(b"k", b"v")
    letters = [replace(one, offset=offset) for offset in range(6)]
    assert sent_back(letters, Outbox(), {0, 1}, limit=3).counts()["replayed"] == 3
    assert sent_back(letters, Outbox(), limit=0).counts()["replayed"] == 0


def test_no_receipt_is_written_for_what_kafka_has_not_taken() -> None:
    """A replay that fails on its way has receipts for what is surely sent, and for nothing else."""
    one, outbox = buried(b"k", b"v"), Outbox(failing_at=LETTERS_AT_ONCE + 5)
    letters = [replace(one, offset=offset) for offset in range(2 * LETTERS_AT_ONCE)]
    with pytest.raises(ConnectionError):
        sent_back(letters, outbox)
    assert len(outbox.kept) == LETTERS_AT_ONCE + 1
    assert read(records((None, outbox.kept[-1][2], outbox.kept[-1][3])), 0) == list(range(LETTERS_AT_ONCE))


def test_a_kafka_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    """The address, exit code 1, no traceback; a wrong setting is 2, with its name."""
    monkeypatch.setenv("HEADRACE_KAFKA", "127.0.0.1:1")
    assert main(["list"]) == 1
    assert main(["fraud", "replay"]) == 1
    said = capfd.readouterr()
    assert (said.out, len(said.err.splitlines())) == ("", 2)
    assert said.err.startswith("error: Kafka at 127.0.0.1:1 does not answer")
    monkeypatch.setenv("HEADRACE_PARTITIONS", "0")
    assert main(["fraud", "show", "3"]) == 2
    assert capfd.readouterr().err.startswith("error: HEADRACE_PARTITIONS: ")
