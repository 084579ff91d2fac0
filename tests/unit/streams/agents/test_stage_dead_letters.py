"""Two stages and what they cannot read: it is buried under its reason, and the rest goes on."""

import numpy as np

from streams.runtime.dlq import ERROR, MESSAGE, SOURCE
from streams.runtime.hop import HopFormat
from tests.unit.streams.agents.payments import PAYMENTS, check, run, started
from tests.unit.streams.world import CUSTOMER, NOW, Message, label_rows
from tests.wider import WIDER


def test_poison_is_buried_and_the_rest_goes_on() -> None:
    """Poison on the public topic and on the hop goes to the dead letters, counted, and the others are scored."""

    async def scenario() -> None:
        world = await started(PAYMENTS[:6])
        log = world.broker.logs[world.topics.events.name, 0]
        log.insert(2, Message(b"c", b"\xff{"))
        log.insert(4, Message(None, None))
        world.broker.logs[world.topics.hops[0].name, 0].append(Message(b"t", b"not a hop"))
        await world.finish()
        await check(world, PAYMENTS[:6])
        letters = world.broker.all(world.topics.dlq.name)
        assert sorted((one.value or b"", dict(one.headers)[SOURCE]) for one in letters) == [
            (b"", b"fraud.transactions/0/4"),
            (b"not a hop", b"fraud.by-terminal/0/0"),
            (b"\xff{", b"fraud.transactions/0/2"),
        ]
        counted = [
            world.metrics.registry.get_sample_value("headrace_dlq_total", {"reason": reason})
            for reason in ("null", "undecodable")
        ]
        assert counted == [1, 2]

    run(scenario)


def test_a_row_of_a_source_that_there_is_not_is_buried() -> None:
    """What a hop message says of its source is not trusted: the stage goes on, and the row says why it did not."""

    async def scenario() -> None:
        world = await started(PAYMENTS[:6])
        foreign = label_rows("t1", "e1", 1, NOW, partition=1, offset=0)
        world.hop(0, foreign)
        world.broker.logs[world.topics.hops[0].name, 0].insert(0, Message(b"t", b"not a hop"))
        await world.finish()
        await check(world, PAYMENTS[:6])
        letters = [dict(one.headers) for one in world.broker.all(world.topics.dlq.name)]
        assert [(one[SOURCE], one[MESSAGE]) for one in letters] == [
            (b"fraud.by-terminal/0/0", b"not a hop message"),
            (b"fraud.by-terminal/0/1", b"from partition 1 of a source with 1"),
        ]

    run(scenario)


def test_a_row_of_another_feature_set_is_buried_by_that_name() -> None:
    """Features of another declaration are never taken for ours, and the row says whose it is."""

    async def scenario() -> None:
        world = await started(PAYMENTS[:6])
        theirs = HopFormat(WIDER.features, 1)
        row = theirs.label_updates(1, ["t1"], ["e1"], [1], np.array([NOW]), 0, np.array([0]))
        world.broker.logs[world.topics.hops[0].name, 0].append(Message(b"t1", theirs.encode(row).to_list()[0]))
        await world.finish()
        await check(world, PAYMENTS[:6])
        [letter] = [dict(one.headers) for one in world.broker.all(world.topics.dlq.name)]
        assert letter[ERROR] == b"foreign_features"
        assert WIDER.features.fingerprint.encode() in (letter[MESSAGE] or b"")

    run(scenario)


def test_the_dead_letters_of_a_batch_travel_together() -> None:
    """However much of a fetched batch is garbage, it is one thing that a checkpoint waits for."""

    async def scenario() -> None:
        world = await started([])
        await world.start(CUSTOMER, automatic=False)
        world.broker.logs[world.topics.events.name, 0] += [Message(None, b"garbage")] * 500
        await world.step(CUSTOMER, 0)
        assert world.senders[CUSTOMER].pending == 1
        world.senders[CUSTOMER].deliver()
        assert len(world.broker.all(world.topics.dlq.name)) == 500

    run(scenario)
