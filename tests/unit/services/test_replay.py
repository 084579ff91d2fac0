"""A replay: the order of its records, their pace, its promises, and what it says of bad input."""

import json
import threading
import time
from math import inf
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from schemas.events import WATERMARK_HEADER
from services.replay import __main__ as door
from services.replay.replay import MARK_RECORDS, Replay
from services.replay.schedule import known_by, merged
from streams.stores.files import Events, read
from streams.usecases import FRAUD

PARTITIONS = 2


class Notebook:
    """A producer that only writes down what it is to send."""

    def __init__(self) -> None:
        self.records: list[tuple[str, Any, bytes | None, int | None]] = []
        self.times: list[float] = []

    def send(self, topic: str, value: bytes, key: Any = None, headers: Any = None, partition: Any = None) -> None:
        assert (headers is None) == (partition is None)
        assert headers is None or headers == [(WATERMARK_HEADER, b"1")]
        self.records.append((topic, json.loads(value), key, partition))
        self.times.append(time.monotonic())

    def flush(self) -> None:
        self.records.append(("flush", None, None, None))


def events_at(folder: Path, times: list[int]) -> Events:
    """Return events at `times`, of one customer each, every second one fraud."""
    count = len(times)
    columns = {
        "event_id": [f"e{i}" for i in range(count)],
        "event_time": times,
        "customer_id": [f"c{i}" for i in range(count)],
        "terminal_id": ["t"] * count,
        "amount": [float(i) for i in range(count)],
        "label": [i % 2 for i in range(count)],
    }
    path = folder / "events.parquet"
    pyarrow.parquet.write_table(pa.table(columns), path)
    return read(path, FRAUD, {})


def replayed(events: Events, delay: int, speed: float = inf, stop: threading.Event | None = None) -> Notebook:
    """Return what a replay of `events` sends."""
    notebook = Notebook()
    topics = FRAUD.topics(PARTITIONS)
    stop = stop or threading.Event()
    Replay(cast(Any, notebook), topics, events, delay, len(events), speed, stop, lambda: None).run()
    return notebook


def test_labels_follow_their_delay_and_precede_events_of_their_time() -> None:
    """Records go out in time order, labels before events of one time, and those due after the last event too."""
    # a@0  b@10  c@20, labels 10 later:  a  A b  B c  C
    times, is_label = merged(np.array([0, 10, 20]), 10, 3)
    assert times.tolist() == [0, 10, 10, 20, 20, 30]
    assert is_label.tolist() == [False, True, False, True, False, True]


def test_labels_of_the_future_are_not_known() -> None:
    """Only events at least the delay before the latest moment have a label."""
    assert known_by(np.array([0, 10, 20]), 10, 25) == 2
    assert known_by(np.array([0, 10, 20]), 10, 30) == 3


def test_every_event_and_label_is_sent_once(tmp_path: Path) -> None:
    """Events are keyed by the customer and labels by the event, with the label's own time."""
    sent = replayed(events_at(tmp_path, [0, 10, 20]), 10).records
    events = [(value["event_id"], key) for topic, value, key, _ in sent if topic == "fraud.transactions" and key]
    labels = [(value, key) for topic, value, key, _ in sent if topic == "fraud.labels" and key]
    assert events == [("e0", b"c0"), ("e1", b"c1"), ("e2", b"c2")]
    assert labels == [
        ({"event_id": f"e{i}", "label_time": 10 * i + 10, "label": i % 2}, f"e{i}".encode()) for i in range(3)
    ]


def test_promises_are_kept_and_taken_back(tmp_path: Path) -> None:
    """Every partition hears a promise before the first record and its end after the last; none is broken."""
    count = 3 * MARK_RECORDS
    sent = replayed(events_at(tmp_path, [7 * i for i in range(count)]), 100).records
    every = [(topic, partition) for topic in ("fraud.transactions", "fraud.labels") for partition in range(PARTITIONS)]
    assert [(topic, partition) for topic, _, _, partition in sent[: len(every)]] == every
    assert [(topic, partition) for topic, _, _, partition in sent[-len(every) - 1 : -1]] == every
    assert all(value == {"watermark": None} for _, value, _, _ in sent[-len(every) - 1 : -1])
    assert sent[-1][0] == "flush"
    promised, marks = -1, 0
    for topic, value, key, _ in sent[: -len(every) - 1]:
        if key is None:
            assert value["watermark"] >= promised
            promised, marks = value["watermark"], marks + 1
        else:
            assert value["event_time" if topic == "fraud.transactions" else "label_time"] >= promised
    assert marks / len(every) >= 2 * count / MARK_RECORDS


def test_speed_is_stream_time_over_time(tmp_path: Path) -> None:
    """At speed 20 two seconds of stream take a tenth of a second, and a promise is made before each wait."""
    begin = time.monotonic()
    notebook = replayed(events_at(tmp_path, [0, 2000]), 1, speed=20)
    last = [at for at, (topic, _, key, _) in zip(notebook.times, notebook.records, strict=False) if key][-1]
    assert last - begin >= 0.1
    before_wait = notebook.records.index(("fraud.transactions", {"watermark": 2000}, None, 0))
    assert notebook.times[before_wait] - begin < 0.1


def test_a_stopped_replay_takes_its_promises_back(tmp_path: Path) -> None:
    """Whoever is told to stop sends no more record, but the end of the promises."""
    stop = threading.Event()
    stop.set()
    sent = replayed(events_at(tmp_path, [0, 1]), 1, stop=stop).records
    assert not [key for _, _, key, _ in sent if key]
    assert ("fraud.labels", {"watermark": None}, None, 1) in sent


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--speed", "0"], "'0': must be a number above 0, or max"),
        (["--speed", "nan"], "'nan': must be a number above 0, or max"),
        (["--limit", "0"], "'0': must be a whole number above 0"),
        (["--label-delay", "7"], "'7': must be a duration above 0"),
        (["--columns", "amount"], "'amount': must be field=COLUMN"),
    ],
)
def test_a_wrong_option_is_named(capsys: Any, arguments: list[str], message: str) -> None:
    """A wrong option ends with its value and what it must be."""
    with pytest.raises(SystemExit) as error:
        door.main(["fraud", "--input", "any", *arguments])
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_an_unreachable_kafka_is_named(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    """Without Kafka there is one line with its address, and exit code 1."""
    events_at(tmp_path, [0])
    monkeypatch.setenv("HEADRACE_KAFKA", "127.0.0.1:1")
    monkeypatch.setattr("streams.runtime.topics.REACH_MS", 300)
    assert door.main(["fraud", "--input", str(tmp_path / "events.parquet")]) == 1
    assert capsys.readouterr().err.startswith("error: Kafka at 127.0.0.1:1 does not answer")


def test_a_wrong_file_is_named_before_kafka_is_asked(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    """The file is validated first, and its error is one line."""
    monkeypatch.setenv("HEADRACE_KAFKA", "127.0.0.1:1")
    assert door.main(["fraud", "--input", str(tmp_path / "none.csv")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/none.csv: cannot be read: No such file or directory\n"
