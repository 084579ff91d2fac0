"""The promise in a simulated cluster: whatever happens in whatever order, it ends as if nothing had happened.

A case is a few events and a script of mishaps, both drawn as bytes, which are quick to draw and to shrink. The
oracle folds the logs once: what came of every input by the table alone. And the oracle is worth something: with any
one step of the protocol taken away the same cases find a difference.
"""

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from schemas.events import Score, Transaction
from streams.features.spec import DAY, HOUR, MINUTE, Over
from streams.features.table import EntityTable
from streams.features.vector import assemble, merge_order
from streams.runtime import checkpoint
from streams.runtime.hop import WATERMARK, HopRows
from streams.stores import snapshot_store
from streams.usecases import FRAUD
from tests.unit.streams.cluster import Cluster, Label, Worker
from tests.unit.streams.mutants import MUTANTS
from tests.unit.streams.shaky import ShakyStore
from tests.unit.streams.world import CUSTOMER, HOPS, NOW, TERMINAL

THOROUGH = "CASES" in os.environ
CASES = int(os.environ.get("CASES", "200"))
START = NOW - 120 * DAY
GAPS = (0, 1, MINUTE, HOUR, DAY, 9 * DAY)
LATE = (0, 0, 0, 0, 0, HOUR, 20 * DAY, 40 * DAY)
WORK = ("wait", "fold", "fold", "fold", "acknowledge", "acknowledge", "checkpoint", "checkpoint", "join")
KEEPING = ("evict", "archive", "archive")
MISHAPS = ("kill", "steal", "hand over", "answer lost", "refuse", "fail", "snapshot", "restore", "flip")
ACTIONS = WORK * 3 + KEEPING * 2 + MISHAPS

decode = msgspec.json.Decoder(Score).decode


def payments(drawn: bytes) -> list[Transaction]:
    """Return an event for every three bytes: gap and lateness, who and where, how much; some come again."""
    events: list[Transaction] = []
    time = START
    for number in range(len(drawn) // 3):
        gap, who, rest = drawn[3 * number : 3 * number + 3]
        time += GAPS[gap % len(GAPS)]
        when = time - LATE[gap // len(GAPS) % len(LATE)]
        again = rest % 8 == 7 and events
        event = Transaction(f"e{number}", when, f"c{who % 5}", f"t{who // 5 % 3}", 1 + rest / 7)
        events.append(events[who % len(events)] if again else event)
    return events


def send(cluster: Cluster, events: Sequence[Transaction]) -> None:
    """Send events as a live producer does, and a label for every other one an hour later."""
    for number, event in enumerate(events):
        cluster.send(event)
        if number % 2 == 0:
            label(cluster, event)


def replay(cluster: Cluster, events: Sequence[Transaction], promise_every: int) -> None:
    """Send events and labels in the order of their times, with promises between them and an end."""
    moments = [(event.event_time, 1, event) for event in events]
    moments += [(event.event_time + HOUR, 0, event) for event in events[::2]]
    moments.sort(key=lambda moment: moment[:2])
    for number, (time, is_event, event) in enumerate(moments):
        if number % promise_every == 0:
            cluster.promise(time)
        if is_event:
            cluster.send(event)
        else:
            label(cluster, event)
    cluster.promise(None)


def label(cluster: Cluster, event: Transaction) -> None:
    known = Label(event.terminal_id, event.event_id, event.event_time + HOUR)
    cluster.labels[cluster.place(event.event_id)].append(known)


async def play(cluster: Cluster, script: bytes) -> None:
    """Carry out an action for every three bytes."""
    for at in range(0, len(script) - 2, 3):
        action, a, b = ACTIONS[script[at] % len(ACTIONS)], script[at + 1], script[at + 2]
        worker = cluster.workers[a % len(cluster.workers)]
        if action in WORK + KEEPING:
            work(cluster, worker, action, a // 8, b)
        else:
            await befall(cluster, worker, action, a, b)
        await cluster.tick()


def work(cluster: Cluster, worker: Worker, action: str, a: int, b: int) -> None:
    """Let a worker do what it does all day."""
    held = list(worker.positions)
    match action:
        case "fold" if held:
            cluster.work(worker, held[a % len(held)], 1 + b % 4)
        case "acknowledge":
            cluster.acknowledge(worker, b % 8, 1 + b // 8 % 4)
        case "checkpoint":
            cluster.checkpoint(worker)
        case "join":
            cluster.join(a % cluster.partitions, 1 + b % 3, again=b // 4 % 3)
        case "evict":
            cluster.evict(worker)
        case "archive":
            cluster.archive(worker)


async def befall(cluster: Cluster, worker: Worker, action: str, a: int, b: int) -> None:
    """Let something happen to a worker, a slot, or the store."""
    slot = cluster.slots[a % len(cluster.slots)]
    match action:
        case "kill":
            cluster.acknowledge(worker, b % 8, b // 8 % 4, answered=False)
            await cluster.die(worker, "killed")
        case "steal":
            await cluster.give(slot, cluster.another(slot, b))
        case "hand over":
            await cluster.hand_over(slot, cluster.another(slot, b))
        case "answer lost":
            cluster.acknowledge(worker, b % 8, 1 + b // 8 % 4, answered=False)
        case "refuse":
            cluster.refuse(worker)
        case "fail":
            cluster.fail(("lost", "answer lost")[b % 2])
        case "snapshot":
            cluster.snapshot()
        case "restore":
            cluster.restore(b // 2, [slot] if b % 2 else cluster.slots)
        case "flip":
            cluster.flip(slot, b)


def differences(cluster: Cluster, events: Sequence[Transaction], replayed: bool) -> list[str]:
    """Compare what came of the logs with what one fold of them makes.

    Terminals see events and labels in the order of the hop topic, in a replay in that of their times.
    """
    times = np.array([event.event_time for event in events])
    values = np.array([[event.amount, 0.0] for event in events])
    kinds = np.full(len(events), Over.EVENTS, np.int8)
    customers = EntityTable(FRAUD.features.stages[CUSTOMER], FRAUD.features)
    ids = [event.event_id.encode() for event in events]
    staged, fresh = customers.fold_once(ids, [event.customer_id.encode() for event in events], kinds, times, values)
    right = {
        source: numbers.tobytes() for source, numbers in zip(cluster.sources, np.hstack([values, staged]), strict=True)
    }
    right = {source: right[source] for source, new in zip(cluster.sources, fresh, strict=True) if new}

    rows = HopRows.concatenate([first_of_each(cluster, partition) for partition in range(cluster.partitions)])
    if replayed:
        rows = rows.take(merge_order(rows.times, rows.kinds, [text.encode() for text in rows.texts[0]]))
    is_event = np.flatnonzero(rows.kinds == Over.EVENTS)
    passed = {sources(rows)[row]: rows.numbers[row].tobytes() for row in is_event}
    width = values.shape[1]
    terminals = EntityTable(FRAUD.features.stages[TERMINAL], FRAUD.features)
    last = terminals.fold([key.encode() for key in rows.texts[2]], rows.kinds, rows.times, rows.numbers[:, :width])
    vectors = assemble(FRAUD.features, rows.times, rows.numbers[:, : width - 1], [rows.numbers[:, width:], last])
    expected: dict[str, set[bytes]] = {}
    for row in is_event:
        expected.setdefault(rows.texts[0][row], set()).add(vectors[row].tobytes())
    scored: dict[str, set[bytes]] = {}
    for message in cluster.broker.all(cluster.topics.scores.name):
        score = decode(message.value or b"")
        scored.setdefault(score.event_id, set()).add(np.array(list(score.features.values())).tobytes())
    return [
        *unlike("the state of customer", cluster.states(CUSTOMER), customers.states()),
        *unlike("what is passed on of", passed, right),
        *unlike("the state of terminal", cluster.states(TERMINAL), terminals.states()),
        *unlike("the score of", scored, expected),
    ]


def sources(rows: HopRows) -> list[tuple[int, int, int]]:
    """Return of each row where its event or label stands: topic, partition, offset."""
    columns = (rows.source_topics, rows.source_partitions, rows.source_offsets)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def first_of_each(cluster: Cluster, partition: int) -> HopRows:
    """Return the rows of a hop partition in order, of every source record the first."""
    rows, bad = HOPS.decode(cluster.read(cluster.topics.hops[0].name, partition))
    assert not len(bad)
    found: dict[tuple[int, int, int], int] = {}
    for row, source in enumerate(sources(rows)):
        if rows.kinds[row] != WATERMARK:
            found.setdefault(source, row)
    return rows.take(np.array(list(found.values()), np.int64))


def unlike(what: str, found: Mapping[Any, Any], expected: Mapping[Any, Any]) -> list[str]:
    """Say what is missing, too much, or other than it should be."""
    keys = sorted(found.keys() | expected.keys())
    how = {key: "missing" if key not in found else "other" if key in expected else "too much" for key in keys}
    return [f"{what} {key} is {how[key]}" for key in keys if found.get(key) != expected.get(key)]


async def case(partitions: int, promise_every: int, drawn: bytes, script: bytes) -> None:
    """Play a script, work to the end, and find no difference; `promise_every` is 0 for live events."""
    events = payments(drawn)
    cluster = Cluster(partitions, ShakyStore())
    if promise_every:
        events = sorted({event.event_id: event for event in events}.values(), key=lambda event: event.event_time)
        replay(cluster, events, promise_every)
    else:
        send(cluster, events)
    worker = cluster.start()
    for slot in cluster.slots:
        await cluster.give(slot, worker)
    try:
        await play(cluster, script)
        await cluster.finish(lost=script[0] >= 128)
        assert not (found := differences(cluster, events, promise_every > 0)), found
    except BaseException:
        note("\n".join(cluster.story))
        raise


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """A loop for all cases, in which archiving does not pause by the clock, and a copy does after each entity."""
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as one:
        patch.setattr(snapshot_store, "PAUSE", 0.0)
        patch.setattr(checkpoint, "PIECE", 1)
        yield one


def tried(runner: asyncio.Runner, **how: Any) -> None:
    """Try drawn cases until one of them fails, or all have held."""

    @settings(deadline=None, suppress_health_check=list(HealthCheck), **how)
    @given(
        st.integers(1, 3),
        st.sampled_from([0, 0, 1, 4]),
        st.binary(min_size=24, max_size=36),
        st.binary(min_size=120, max_size=120),
    )
    def holds(partitions: int, promise_every: int, drawn: bytes, script: bytes) -> None:
        runner.run(case(partitions, promise_every, drawn, script))

    holds()


def test_whatever_happens_it_ends_as_if_nothing_had(runner: asyncio.Runner) -> None:
    """No difference in any case; `make simulate CASES=10000` tries more of them."""
    tried(runner, max_examples=CASES)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_without_a_step_there_is_a_difference(
    runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch, mutant: str
) -> None:
    """The cases tell the protocol from one that lacks a step, so that they hold says something."""
    monkeypatch.setattr(*MUTANTS[mutant])
    phases = (Phase.generate, Phase.shrink) if THOROUGH else (Phase.generate,)
    with pytest.raises(AssertionError) as caught:
        tried(runner, max_examples=2000, derandomize=True, database=None, phases=phases)
    print("\n".join([f"{mutant}:", *caught.value.__notes__, str(caught.value)]))
