"""Alive or not, ready or not, and why: the clock is turned by hand."""

import logging
from collections.abc import Collection

import pytest
from faust.types import TP

from streams.metrics import Metrics
from streams.runtime.health import CAUGHT_UP_SECONDS, RETRIED_SECONDS, TELL_SECONDS, Health, Log, Standing

STALL = 60.0
ONE, OTHER = TP("fraud.transactions", 0), TP("fraud.labels", 1)


def running(*stores: str) -> Health:
    """The health of a process whose event loop has begun."""
    health = Health(stores or ("kafka", "redis"), Metrics("worker"), STALL)
    health.beat()
    return health


def later(health: Health, seconds: float, silent: Collection[str] = ()) -> None:
    """Let time pass for a process whose event loop runs and whose stores answer, but for those that are silent."""
    health.advance(seconds)
    health.beat()
    for store in set(health._stores) - set(silent):
        health.answered(store, promptly=True)


def see(health: Health, offset: int, end: int, beats: int = 0, begin: int = 0) -> None:
    health.saw({ONE: Standing(offset, beats)}, {ONE: Log(begin, end)})


def reasons(health: Health) -> list[str]:
    yes, content = health.readyz()
    assert yes is content["ready"] is (not content["reasons"])
    found: list[str] = content["reasons"]
    return found


def test_work_that_does_not_move_has_stalled() -> None:
    """Records are there, every store answers, the offset stands still: not alive, and the partition is named."""
    health = running()
    see(health, 5, 9)
    later(health, STALL)
    see(health, 5, 12)
    assert health.stalled() is None
    assert health.livez().yes
    later(health, 1)
    assert health.stalled() == "fraud.transactions/0 has stood at offset 5 of 12 for 61 s"
    assert not health.livez().yes
    assert health.stalled() in reasons(health)


@pytest.mark.parametrize(
    ("offset", "beats", "begin"),
    [
        (6, 0, 0),  # one record further
        (5, 1, 0),  # it looked again whether what it waits for is there
        (5, 0, 6),  # retention has taken the record that it stood at
    ],
)
def test_any_step_is_progress(offset: int, beats: int, begin: int) -> None:
    """A step forward starts the time anew."""
    health = running()
    see(health, 5, 9)
    later(health, STALL)
    see(health, offset, 9, beats, begin)
    later(health, STALL)
    assert health.stalled() is None
    later(health, 1)
    assert health.stalled()


def test_who_has_nothing_to_do_has_not_stalled() -> None:
    """At the end of the log, before its first record, or without a partition: alive for ever."""
    health = running()
    see(health, 9, 9)
    later(health, 10 * STALL)
    see(health, -1, 7, begin=7)
    later(health, 10 * STALL)
    assert health.stalled() is None
    health.saw({}, {})
    later(health, 10 * STALL)
    assert health.stalled() is None


def test_work_that_comes_after_a_long_rest_has_its_full_time() -> None:
    """The time at rest does not count."""
    health = running()
    see(health, 9, 9)
    later(health, 10 * STALL)
    see(health, 9, 9)
    see(health, 9, 10)
    later(health, STALL)
    assert health.stalled() is None


def test_a_partition_that_others_have_now_is_not_waited_for() -> None:
    """It was behind when it was given up, and comes back later: its time starts anew."""
    health = running()
    see(health, 5, 9)
    later(health, STALL)
    health.saw({}, {})
    assert health.longest_wait() == 0
    later(health, STALL)
    see(health, 5, 9)
    assert health.longest_wait() == 0


def test_one_partition_that_hangs_is_enough() -> None:
    """Others that go on do not hide it."""
    health = running()
    for second in range(62):
        health.saw({ONE: Standing(second), OTHER: Standing(5)}, {ONE: Log(0, 100), OTHER: Log(0, 9)})
        later(health, 1)
    assert health.stalled() == "fraud.labels/1 has stood at offset 5 of 9 for 62 s"


def test_what_waits_as_well_is_named() -> None:
    """Who holds what others wait for may have been seen later than they: all of them stand in the line."""
    health = running()
    with health.working("a checkpoint"):
        later(health, 1)
        see(health, 5, 9)
        later(health, STALL)
        with health.working("an announcement"):
            found = "fraud.transactions/0 has stood at offset 5 of 9 for 60 s, a checkpoint has not ended for 61 s"
            assert health.stalled() == found


def test_a_task_that_does_not_end_has_stalled() -> None:
    """A checkpoint that hangs is told by its name; one that fails or ends is not."""
    health = running()
    with pytest.raises(ValueError, match="gone"), health.working("a checkpoint"):
        raise ValueError("gone")
    later(health, 2 * STALL)
    assert health.stalled() is None
    with health.working("a checkpoint"):
        later(health, STALL + 1)
        assert health.stalled() == "a checkpoint has not ended for 61 s"


def test_a_task_may_take_long_in_steps() -> None:
    """A take-over that restores states, page by page, has not stalled; it has once no page comes."""
    health = running()
    with health.working("a take-over"):
        for _ in range(3):
            later(health, STALL)
            assert health.stalled() is None
            health.moved()
        later(health, STALL + 1)
        assert health.stalled() == "a take-over has not ended for 61 s"


def test_a_task_may_need_another_store() -> None:
    """It is excused while that is away; what else the process does is not."""
    health = running("kafka")
    see(health, 9, 9)
    with health.working("a take-over", "cassandra"):
        for _ in range(20):
            health.retried("cassandra", ConnectionError())
            later(health, 5)
        assert health.stalled() is None
        see(health, 5, 9)
        for _ in range(13):
            health.retried("cassandra", ConnectionError())
            later(health, 5)
        assert health.stalled() == "fraud.transactions/0 has stood at offset 5 of 9 for 65 s"


@pytest.mark.parametrize("how", ["silent", "retried"])
def test_waiting_for_a_store_is_alive_and_not_ready(how: str) -> None:
    """However long it is away; when it is back, work has its full time again."""
    health = running()
    see(health, 5, 9)
    with health.working("a checkpoint"):
        for _ in range(40):
            if how == "silent":
                health.answered("redis", promptly=False)
            else:
                health.retried("redis", ConnectionError("no answer"))
            later(health, 5, silent=["redis"] if how == "silent" else [])
            assert health.livez().yes
            assert "redis is away" in reasons(health)
        health.answered("redis", promptly=True)
        later(health, STALL)
        assert health.livez().yes
        later(health, RETRIED_SECONDS + 1)
        assert not health.livez().yes


def test_a_store_that_has_just_fallen_silent_may_be_the_reason() -> None:
    """Before its silence is known, time counts only up to its last answer; if it was slow, time goes on from there."""
    health = running()
    see(health, 5, 9)
    later(health, STALL)
    later(health, 3, silent=["redis"])
    assert health.stalled() is None
    later(health, 0)
    assert health.stalled()


def test_who_stops_trying_is_not_excused_for_ever() -> None:
    """A failed attempt excuses only until the next is due."""
    health = running()
    see(health, 5, 9)
    health.retried("redis", ConnectionError())
    later(health, RETRIED_SECONDS)
    assert not health.away("redis")
    for _ in range(61):
        later(health, 1)
    assert health.stalled()


def test_a_store_that_can_be_done_without_is_no_excuse() -> None:
    """Its attempts are counted, but neither readiness nor the time that counts depends on it."""
    health = running("kafka")
    see(health, 9, 9)
    see(health, 5, 9)
    later(health, STALL)
    health.retried("cassandra", ConnectionError())
    later(health, 1)
    assert health.stalled()
    assert "cassandra" not in health.readyz().content["stores"]


def test_an_event_loop_that_hangs_has_stalled_whoever_is_away() -> None:
    """Nothing else can be said of it: the store may be back since."""
    health = running()
    health.answered("kafka", promptly=False)
    health.advance(STALL + 1)
    assert health.stalled() == "the event loop has been stuck for 61 s"


def test_a_process_that_starts_is_alive_and_not_ready() -> None:
    """Before its event loop first beats it has its servers' time-outs, not ours."""
    health = Health(["kafka"], Metrics("worker"), STALL)
    health.advance(10 * STALL)
    assert health.livez().yes
    assert reasons(health) == ["starting"]


def test_without_partitions_it_is_not_ready_and_says_what_it_does() -> None:
    """A process that stands by, or that takes over."""
    health = running()
    assert reasons(health) == ["no partitions are assigned"]
    with health.working("taking partitions over"):
        assert reasons(health) == ["no partitions are assigned, taking partitions over"]


def test_ready_once_what_was_there_is_done() -> None:
    """Not before it has caught up with the end that it found; what comes in at a steady rate does not matter."""
    health = running()
    see(health, 0, 100)
    assert reasons(health) == ["fraud.transactions/0 is 100 records behind"]
    later(health, 1)
    see(health, 50, 150)
    assert reasons(health) == ["fraud.transactions/0 is 100 records behind"]
    for step in range(1, 100):
        later(health, 1)
        see(health, 50 + 50 * step, 150 + 50 * step)  # always two seconds behind
        assert reasons(health) == []


def test_not_ready_while_it_falls_behind() -> None:
    """More than CAUGHT_UP_SECONDS behind what comes in is not ready, and is again once it has caught up."""
    health = running()
    see(health, 100, 100)
    for second in range(1, 60):
        later(health, 1)
        see(health, 100 + 10 * second, 100 + 50 * second)
    assert reasons(health) == ["fraud.transactions/0 is 2360 records behind"]
    later(health, 1)
    see(health, 3200, 3200)
    assert reasons(health) == []
    see(health, 3200, 3300)
    later(health, CAUGHT_UP_SECONDS)
    see(health, 3200, 3300)
    assert reasons(health) == []


def test_metrics_say_the_same() -> None:
    """Whoever looks at the metrics alone sees the store that is away, readiness, and how long work has waited."""
    metrics = Metrics("worker")
    health = Health(["kafka", "redis"], metrics, STALL)

    def shown(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"headrace_{name}", labels)

    assert shown("ready") == 0
    health.beat()
    see(health, 5, 5)
    assert (shown("ready"), shown("store_up", store="redis"), shown("store_up", store="kafka")) == (1, 1, 1)
    see(health, 5, 9)
    later(health, 3)
    assert shown("stalled_seconds") == 3
    health.retried("redis", ConnectionError())
    assert (shown("ready"), shown("store_up", store="redis"), shown("store_up", store="kafka")) == (0, 0, 1)
    assert shown("store_retries_total", store="redis") == 1


def test_a_store_that_is_away_is_told_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    """The first line of the reason, once in TELL_SECONDS, each store for itself."""
    health = running()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            health.retried("redis", ConnectionError("no answer\nand a second line"))
        health.retried("kafka", ConnectionError())
        later(health, TELL_SECONDS)
        health.retried("redis", ConnectionError("still none"))
    assert [record.getMessage() for record in caplog.records] == [
        "redis is away, trying again: no answer",
        "kafka is away, trying again: ConnectionError()",
        "redis is away, trying again: still none",
    ]
