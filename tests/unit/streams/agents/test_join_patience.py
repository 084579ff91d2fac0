"""How long a label waits for its event: until what was there has come all the way."""

from collections.abc import Mapping

from faust.types import TP

from streams.agents.waiting import Patience, Step
from tests.unit.streams.agents.joining import TOPICS, run


class Group:
    """A consumer group as the test moves it; `logs` are the ends of the topics, shared by all groups."""

    def __init__(self, logs: dict[str, int]) -> None:
        self.logs, self.done = logs, dict.fromkeys(logs, 0)

    async def ends(self, topic: str, partitions: int) -> dict[TP, int]:
        return {TP(topic, 0): self.logs[topic]}

    async def passed(self, ends: Mapping[TP, int]) -> bool:
        return all(self.done[tp.topic] >= end for tp, end in ends.items())


def test_patience_follows_an_event_all_the_way() -> None:
    """Over when what was there after the wait has passed the stages, the hop and the history, one after the other;
    what comes later is not waited for."""

    async def scenario() -> None:
        logs, now = {TOPICS.events.name: 3, TOPICS.hops[0].name: 0, TOPICS.scores.name: 0}, [1000.0]
        stages, history = Group(logs), Group(logs)
        way = [*(Step(stages, topic) for topic in (TOPICS.events, *TOPICS.hops)), Step(history, TOPICS.scores)]
        patience = Patience(way, 30.0, lambda: now[0])
        assert await patience.over(1000.0) < 1000.0
        now[0] = 1031.0
        assert await patience.over(1000.0) < 1000.0  # the event may still be in the events
        logs[TOPICS.events.name] = 9  # these came later
        stages.done[TOPICS.events.name], logs[TOPICS.hops[0].name] = 3, 2
        assert await patience.over(1000.0) < 1000.0  # or in the hop
        stages.done[TOPICS.hops[0].name], logs[TOPICS.scores.name] = 2, 5
        now[0] = 1100.0
        assert await patience.over(1000.0) < 1000.0  # or among the scores
        history.done[TOPICS.scores.name] = 5
        assert await patience.over(1000.0) == 1001.0  # of those who have waited since then or longer

    run(scenario())


def test_labels_and_stages_do_not_wait_for_each_other() -> None:
    """A stage may hold its rows for a watermark that waits behind a label: the label does not wait for the stage."""

    async def scenario() -> None:
        logs = {TOPICS.events.name: 3, TOPICS.hops[0].name: 2, TOPICS.scores.name: 5}
        stages, history = Group(logs), Group(logs)
        way = [*(Step(stages, topic) for topic in (TOPICS.events, *TOPICS.hops)), Step(history, TOPICS.scores)]
        patience = Patience(way, 30.0, lambda: 1031.0)
        assert await patience.over(1000.0) < 1000.0
        assert await patience.over(1000.0, promised=True) < 1000.0
        history.done[TOPICS.scores.name] = 5
        assert await patience.over(1000.0, promised=True) == 1001.0

    run(scenario())
