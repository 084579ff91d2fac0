"""The history process on a real Kafka and Cassandra: every score kept, every label joined, whatever happens."""

import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.codec import encode
from schemas.events import WATERMARK_HEADER, Label, Watermark
from streams.agents.joiner import example
from streams.runtime.hop import EVENT, LABEL, WATERMARK
from streams.stores.history import DAY_MS, KeptLabel
from tests.engines import Engine, Server
from tests.integration.history_world import (
    NOW,
    PARTITIONS,
    TOPICS,
    World,
    announcement,
    examples,
    hop_rows,
    kept_models,
    label,
    label_message,
    running,
    score,
    score_message,
)
from tests.local import PATIENCE, within

pytestmark = pytest.mark.integration


@pytest.fixture
def world(kafka_server: str, cassandra_server: str, tmp_path: Path) -> Iterator[World]:
    with running(World(kafka_server, cassandra_server, tmp_path)) as world:
        yield world


def test_scores_are_kept_and_labels_joined(world: World) -> None:
    """Scores land in Cassandra by event and by entity and day; each label makes an example, an update for its
    terminal and a row; a label ahead of its event waits; watermarks reach every partition in their place."""
    n = 500
    world.start()
    # Labels of partition 0 start before any score exists: the first of them have to wait.
    early = [label_message(label(i), 0) for i in range(50)]
    mark = (TOPICS.labels.name, 0, None, encode(Watermark(NOW)), [(WATERMARK_HEADER, b"1")])
    world.send(*early, mark)
    assert within(PATIENCE, lambda: "ready" in world.said())
    world.send(*[score_message(score(i), i % PARTITIONS) for i in range(n)])
    world.send(*[label_message(label(i), 1) for i in range(50, n)])
    assert within(PATIENCE, lambda: world.lag() == 0), world.said()

    scores = {f"e{i}": score(i) for i in range(n)}
    assert world.ask(lambda store: store.scores(list(scores))) == scores
    places = {f"e{i}": (0, i) if i < 50 else (1, i - 50) for i in range(n)}
    kept = {f"e{i}": KeptLabel(label(i), *places[f"e{i}"]) for i in range(n)}
    assert world.ask(lambda store: store.labels(list(scores))) == kept
    of_terminal = [one for one in scores.values() if one.entities["terminal"] == "t3"]
    days = {one.event_time // DAY_MS for one in of_terminal}
    lines = [line for day in days for line in world.ask(lambda store, day=day: store.entity_day("terminal", "t3", day))]  # type: ignore[misc]
    assert Counter(line.event_id for line in lines) == Counter(one.event_id for one in of_terminal)

    learnt = {one.event_id: one for one in examples(world)}
    assert learnt == {f"e{i}": example(label(i), score(i), *places[f"e{i}"]) for i in range(n)}

    for rows in hop_rows(world).values():
        assert EVENT not in rows.kinds
        for source in range(PARTITIONS):
            offsets = rows.source_offsets[(rows.source_partitions == source)].tolist()
            assert len(offsets) == len(set(offsets))
            if 50 in offsets and source == 0:  # whatever overtook what, the watermark follows those before it
                assert set(offsets[offsets.index(50) :]) == {50}
        marks = rows.kinds == WATERMARK
        assert rows.times[marks].tolist() == [NOW]
        assert rows.source_offsets[marks].tolist() == [50]
    told = [
        (event_id, terminal, time_, number)
        for rows in hop_rows(world).values()
        for kind, event_id, terminal, time_, number in zip(
            rows.kinds, rows.texts[0], rows.texts[2], rows.times, rows.numbers[:, 1], strict=True
        )
        if kind == LABEL
    ]
    assert sorted(told) == sorted((f"e{i}", f"t{i % 11}", label(i).label_time, float(label(i).label)) for i in range(n))

    world.processes[0].send_signal(signal.SIGTERM)
    assert world.processes[0].wait(20) == 0


def test_what_cannot_be_joined_ends_in_the_dlq_and_stops_nothing(world: World) -> None:
    """Poison and labels of unknown events go to the DLQ with bytes, key, headers and reason; the rest passes."""
    world.send(
        score_message(score(1), 0),
        (TOPICS.scores.name, 0, b"k", b'{"event_id":"x"}', [("trace", b"7")]),
        (TOPICS.labels.name, 0, b"bad", b"\xff\x00", [("trace", b"8")]),
        (TOPICS.labels.name, 0, b"null", None, []),
        label_message(Label("nobody", NOW, 1), 0),
        label_message(Label("e1", NOW, 1), 0),
        (TOPICS.labels.name, 1, b"big", b"x" * 2_000_000, []),
    )
    world.start()
    assert within(PATIENCE, world.done), world.said()
    dead = {record.key: record for record in world.records(TOPICS.dlq.name)}
    headers = {key: dict(record.headers) for key, record in dead.items()}
    reasons = {key: of["headrace-error"] for key, of in headers.items()}
    assert reasons == {
        b"k": b"invalid", b"bad": b"undecodable", b"null": b"null", b"nobody": b"unknown_event", b"big": b"too_large",
    }  # fmt: skip
    assert dead[b"bad"].value == b"\xff\x00"
    assert dead[b"null"].value is None
    assert len(dead[b"big"].value) == 2_000_000
    assert headers[b"k"]["trace"] == b"7"
    assert headers[b"nobody"]["headrace-source"] == f"{TOPICS.labels.name}/0/2".encode()
    assert [one.event_id for one in examples(world)] == ["e1"]
    assert world.metric('headrace_dlq_total{reason="unknown_event"}') == 1


def test_a_killed_process_loses_nothing(world: World) -> None:
    """After kill -9 in mid-stream, its replacement goes on: every score kept, every label joined."""
    n = 4000
    world.send(*[score_message(score(i), i % PARTITIONS) for i in range(n)])
    world.send(*[label_message(label(i), i % PARTITIONS) for i in range(n)])
    first = world.start(HEADRACE_LABEL_WAIT_SECONDS="30")
    assert within(PATIENCE, lambda: world.lag() < 2 * n), world.said()
    first.kill()
    first.wait(20)
    assert world.lag() > 0
    world.start(HEADRACE_LABEL_WAIT_SECONDS="30")
    assert within(PATIENCE, lambda: world.lag() == 0), world.said()

    scores = {f"e{i}": score(i) for i in range(n)}
    assert world.ask(lambda store: store.scores(list(scores))) == scores
    assert {one.event_id for one in examples(world)} == set(scores)
    assert world.records(TOPICS.dlq.name) == []


@pytest.fixture
def mortal_cassandra(engine: Engine, tmp_path: Path) -> Iterator[Server]:
    with engine.cassandra(tmp_path / "cassandra") as server:
        yield server


def test_cassandra_may_be_away(kafka_server: str, mortal_cassandra: Server, tmp_path: Path) -> None:
    """While Cassandra is down nothing is lost and no label is called unknown; the process lives for longer than a
    stall takes, is not ready and says so; then all of it is caught up with."""
    with running(World(kafka_server, mortal_cassandra.address, tmp_path)) as world:
        n = 200
        world.start(HEADRACE_LABEL_WAIT_SECONDS="0.5", HEADRACE_STALL_SECONDS="5")
        world.send(*[score_message(score(i), i % PARTITIONS) for i in range(10)])
        assert within(PATIENCE, lambda: "ready" in world.said() and world.lag() == 0), world.said()
        mortal_cassandra.kill()
        world.send(*[score_message(score(i), i % PARTITIONS) for i in range(10, n)])
        world.send(*[label_message(label(i), i % PARTITIONS) for i in range(n)])
        world.send((TOPICS.models.name, 0, b"fraud", encode(announcement()), []))
        assert within(PATIENCE, lambda: world.metric('headrace_store_retries_total{store="cassandra"}') > 0)
        assert within(
            PATIENCE, lambda: world.metric('headrace_lag_records{partition="0",topic="fraud.labels"}') == n / 2
        )
        assert within(PATIENCE, lambda: "cassandra is away" in world.unready()), world.unready()
        assert world.metric('headrace_store_up{store="cassandra"}') == 0
        until = time.monotonic() + 6
        while time.monotonic() < until:
            assert world.processes[0].poll() is None, world.said()
            time.sleep(0.2)
        mortal_cassandra.start()
        mortal_cassandra.wait_healthy()
        assert within(PATIENCE, lambda: world.lag() == 0), world.said()
        assert within(PATIENCE, lambda: world.unready() == []), world.unready()

        scores = {f"e{i}": score(i) for i in range(n)}
        assert world.ask(lambda store: store.scores(list(scores))) == scores
        assert {one.event_id for one in examples(world)} == set(scores)
        assert world.records(TOPICS.dlq.name) == []
        assert within(PATIENCE, lambda: world.metric("headrace_lag_records") == 0)
        assert kept_models(world) == ["logistic@7"]
        assert world.processes[0].poll() is None


def test_a_slow_history_makes_no_label_unknown(world: World) -> None:
    """A label gives up only when every score there was by then is written: a long backlog is no reason."""
    n = 2000
    world.send(*[score_message(score(i), 0) for i in range(n)])
    world.send(label_message(label(n - 1), 0), label_message(label(n), 0))
    world.start(HEADRACE_LABEL_WAIT_SECONDS="0.001")
    assert within(PATIENCE, world.done), world.said()
    assert [one.event_id for one in examples(world)] == [f"e{n - 1}"]
    assert [record.key for record in world.records(TOPICS.dlq.name)] == [f"e{n}".encode()]


def test_one_unknown_label_holds_up_no_other(world: World) -> None:
    """A label whose event may still be on its way through the stages waits for as long as that takes, in sight, while
    those behind it are joined; when the stages have passed what there was, its event is unknown."""
    world.send((TOPICS.events.name, 0, b"c", b"an event, that no stage has read yet", []))
    world.send(score_message(score(1), 0), score_message(score(2), 0))
    world.send(label_message(Label("nobody", NOW, 1), 0), label_message(label(1), 0))
    world.start(HEADRACE_LABEL_WAIT_SECONDS="0.2")
    assert within(PATIENCE, lambda: [one.event_id for one in examples(world)] == ["e1"]), world.said()
    world.send(label_message(label(2), 0))
    assert within(PATIENCE, lambda: [one.event_id for one in examples(world)] == ["e1", "e2"]), world.said()
    assert [one.label_offset for one in examples(world)] == [1, 2]
    assert within(5, lambda: world.metric('headrace_waiting_labels{partition="0"}') == 1)
    assert not within(2, lambda: bool(world.records(TOPICS.dlq.name)))
    assert world.lag() == 3  # the label that waits, and what would be read again
    assert within(PATIENCE, world.done), world.said()
    assert [record.key for record in world.records(TOPICS.dlq.name)] == [b"nobody"]


def test_two_processes_share_the_work(world: World) -> None:
    """When a second process joins the group, partitions change hands and every score and label is still done."""
    n = 3000
    world.start(HEADRACE_LABEL_WAIT_SECONDS="30")
    world.send(*[score_message(score(i), i % PARTITIONS) for i in range(n)])
    # Two of scores, two of labels, one of models, one of aliases.
    assert within(PATIENCE, lambda: "ready, with 6" in world.said(0)), world.said(0)
    world.start(HEADRACE_LABEL_WAIT_SECONDS="30")
    assert within(PATIENCE, lambda: world.share(0) == world.share(1) == 3), world.said(0) + world.said(1)
    world.send(*[label_message(label(i), i % PARTITIONS) for i in range(n)])
    assert within(PATIENCE, lambda: world.lag() == 0), world.said()
    scores = {f"e{i}": score(i) for i in range(n)}
    assert world.ask(lambda store: store.scores(list(scores))) == scores
    assert {one.event_id for one in examples(world)} == set(scores)
    for process in world.processes:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("settings", "code", "names"),
    [
        ({"HEADRACE_CASSANDRA": "127.0.0.1:1"}, 1, "127.0.0.1:1"),
        ({"HEADRACE_KAFKA": "127.0.0.1:1"}, 1, "Kafka at 127.0.0.1:1 does not answer"),
        ({"HEADRACE_KEYSPACE": "no-name"}, 2, "HEADRACE_KEYSPACE"),
        ({"HEADRACE_LABEL_WAIT_SECONDS": "-1"}, 2, "HEADRACE_LABEL_WAIT_SECONDS"),
    ],
)
def test_what_is_wrong_is_one_line(world: World, settings: dict[str, str], code: int, names: str) -> None:
    """A wrong setting or a server out of reach is named in one line, without a traceback."""
    process = world.start(**settings)
    assert process.wait(PATIENCE) == code
    lines = [line for line in world.said().splitlines() if not line.startswith("metrics: ")]
    assert len(lines) == 1, lines
    assert names in lines[0]
