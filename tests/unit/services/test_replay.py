"""A replay: the order of its records, their pace, its promises, and what it says of bad input."""

import asyncio
import json
import threading
import time
from collections import deque
from math import inf
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import WATERMARK_HEADER, Score
from services.backtest.run import backtest
from services.replay import __main__ as door
from services.replay import replay as module
from services.replay.replay import MARK_RECORDS, Replay
from services.replay.schedule import known_by, merged
from streams.agents.joiner import Joiner, read_labels
from streams.agents.waiting import Patience, Room, Waiting
from streams.stores.files import Events, read
from streams.usecases import FRAUD
from tests.unit.streams.world import CUSTOMER, NOW, TERMINAL, Message, World

PARTITIONS = 2
decode = msgspec.json.Decoder(Score).decode


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
        ({"event_id": f"e{i}", "label_time": 10 * i + 10, "label": i % 2, "assumed": False}, f"e{i}".encode())
        for i in range(3)
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


class WorldProducer:
    """A producer into the topics of a world in memory."""

    def __init__(self, world: World) -> None:
        self._world = world

    def send(self, topic: str, value: bytes, key: Any = None, headers: Any = (), partition: Any = None) -> None:
        place = self._world.place(key) if partition is None else partition
        self._world.broker.logs[topic, place].append(Message(key, value, tuple(headers or ())))

    def flush(self) -> None:
        """Everything is there already."""


async def lived(events: Events, delay: int, partitions: int) -> dict[str, list[float]]:
    """Return each event's features as the stages score them, the join waiting with each label for its event."""
    world = World(partitions)
    topics, joiner = world.topics, Joiner(FRAUD, partitions)
    replay = Replay(
        cast(Any, WorldProducer(world)), topics, events, delay, len(events), inf, threading.Event(), lambda: None
    )
    replay.run()
    for stage in (CUSTOMER, TERMINAL):
        await world.start(stage)
    rooms, read_up_to = [Room(Patience([], 0)) for _ in range(partitions)], [0] * partitions
    moved = True
    while moved:
        moved = False
        await world.finish()
        scores = {(one := decode(m.value or b"")).event_id: one for m in world.broker.all(topics.scores.name)}
        for partition, room in enumerate(rooms):
            batch = world.broker.fetch(topics.labels.name, partition, read_up_to[partition], 1 << 30)
            if batch:
                coming = deque(Waiting(batch, one, 0.0) for one in read_labels(batch.records, NOW))
                room.admit(coming, 1 << 30)
                assert not coming
                read_up_to[partition] = batch.next_offset
            ready = [one.arrival for one in room.release(room.waiting, scores, -inf)]
            moved |= bool(ready)
            (messages,) = joiner.join(ready, scores, {}, partition).hops
            if messages:
                rows = zip(messages.partitions.tolist(), messages.values.to_list(), strict=True)
                for target, value in rows:
                    world.broker.logs[topics.hops[0].name, target].append(Message(None, value))
    assert not any(map(len, rooms))
    return {name: list(score.features.values()) for name, score in scores.items()}


@settings(deadline=None, max_examples=60)
@given(
    gaps=st.lists(st.sampled_from([0, 0, 1, 1000, 60_000]), min_size=1, max_size=25),
    delay=st.sampled_from([1, 2, 999, 3000, 60_000, 200_000]),
    marks=st.integers(1, 30),
    partitions=st.integers(1, 3),
)
def test_however_short_the_delay_a_replay_gets_through(
    gaps: list[int], delay: int, marks: int, partitions: int
) -> None:
    """Whenever marks fall, the join, which waits for scores, and the gate, which waits for marks, never wait for
    each other, and every feature is the backtest's, bit for bit."""
    n = len(gaps)
    columns = {
        "event_id": [f"{'zaf'[i % 3]}{i}" for i in range(n)],
        "event_time": (NOW - 90_000_000 + np.cumsum(gaps)).tolist(),
        "customer_id": [f"c{i % 4}" for i in range(n)],
        "terminal_id": [f"t{i % 3}" for i in range(n)],
        "amount": [1.0 + i / 7 for i in range(n)],
    }
    events = Events(
        FRAUD, {name: pa.array(column) for name, column in columns.items()}, np.arange(n, dtype=np.int8) % 2
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MARK_RECORDS", marks)
        patch.setattr(module, "MARK_SECONDS", inf)
        live = asyncio.run(asyncio.wait_for(lived(events, delay, partitions), 60))
    expected = backtest(events, delay, 60_000, lambda rows: None).features
    assert live == dict(zip(events.event_ids, expected.tolist(), strict=True))


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
        (["--label-delay", "0s"], "'0s': must be a duration above 0"),
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
