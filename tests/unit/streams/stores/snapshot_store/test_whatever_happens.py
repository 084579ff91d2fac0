"""All of it in any order, compared with the backtest."""

from contextlib import suppress
from itertools import islice

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.stores.memory import Kept
from tests.unit.streams.agents.payments import STAGES, check, run
from tests.unit.streams.stores.snapshot_store.scene import PAYMENTS, Died, Scene

ACTIONS = st.one_of(
    st.tuples(st.just("pay"), st.integers(1, 3)),
    st.tuples(st.just("work"), st.integers(1, 4)),
    st.tuples(st.sampled_from(["archive", "archive while events come"]), st.integers(0, 9)),
    st.tuples(st.sampled_from(["replace", "remember", "restore", "lose"]), st.just(0)),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ACTIONS, max_size=25))
def test_whatever_happens_nothing_shows_it(actions: list[tuple[str, int]]) -> None:
    """Workers replaced, rounds broken off, Redis set back or lost with all that Kafka had before the snapshots: the
    scores and states are the backtest's."""

    async def scenario() -> None:
        scene = Scene(1)
        coming, older = iter(PAYMENTS), dict[str, Kept]()
        await scene.start()

        async def work(number: int) -> None:
            for stage in STAGES:
                await scene.world.step(stage, 0, number)
                await scene.world.checkpoint(stage)

        async def more() -> None:
            scene.pay(list(islice(coming, 1)))
            await work(2)

        for what, number in actions:
            match what:
                case "pay":
                    scene.pay(list(islice(coming, number)))
                case "work":
                    await work(number)
                case "archive" | "archive while events come":
                    scene.snapshots.until = number or None
                    scene.snapshots.on_write = more if "while" in what else None
                    with suppress(Died):
                        await scene.archive()
                    scene.snapshots.until = scene.snapshots.on_write = None
                case "replace":
                    await scene.start()
                case "remember":
                    older = dict(scene.redis.kept)
                case "restore":
                    scene.redis.kept = dict(older)
                    await scene.start()
                case "lose":
                    await scene.forget_archived()
                    scene.wipe()
                    older = {}  # older than what Kafka has
                    await scene.start()
        await scene.paid(list(coming))
        await check(scene.world, PAYMENTS)

    run(scenario)
