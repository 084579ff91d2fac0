"""The better recipe becomes champion, an equal one does not, and one that does worse than before makes way again."""

import numpy as np
import pytest

from streams.models.judge import BLOCK, GRID, PROBATION, Seat, Verdict, judge
from streams.models.progressive import Progressive

RECIPES = ("champion", "challenger", "third")


class World:
    """Events with a fraud rate of 2 %, scored with as much noise as each recipe makes."""

    def __init__(self, seed: int = 1, seat: Seat | None = None) -> None:
        self._rng = np.random.default_rng(seed)
        self.progressive = Progressive(RECIPES)
        self.seat = seat or Seat("champion")
        self.verdicts: list[Verdict] = []

    def goes_on(self, labels: int, unscored: float = 0.0, **noise: float) -> list[Verdict]:
        """Let so many labels come, and carry out what is decided at each point of the grid.

        The share `unscored` of the events has no score of anybody but the champion.
        """
        before = len(self.verdicts)
        for _ in range(labels // GRID):
            log_odds = self._rng.normal(-5.5, 2.0, GRID)
            truth = (self._rng.random(GRID) < 1 / (1 + np.exp(-log_odds))).astype(np.int8)
            said = np.stack(
                [log_odds + self._rng.normal(0, noise[one], GRID) if one in noise else np.full(GRID, np.nan)
                 for one in RECIPES], axis=1,
            )  # fmt: skip
            said[self._rng.random(GRID) < unscored, 1:] = np.nan
            self.progressive.add(1 / (1 + np.exp(-said)), truth)
            verdict = judge(self.progressive, self.seat)
            if verdict:
                self.verdicts.append(verdict)
                self.seat = Seat(verdict.champion, self.seat.champion, self.progressive.seen)
        return self.verdicts[before:]


@pytest.mark.parametrize("seed", range(3))
def test_the_better_one_is_promoted_once(seed: int) -> None:
    """Within a window of labels, with the reason; of two better ones the best; afterwards all stays as it is."""
    world = World(seed)
    (verdict,) = world.goes_on(64 * BLOCK, champion=2.0, challenger=1.0, third=0.2)
    assert verdict.champion == "third"
    assert verdict.reason.startswith("promotion: third did better than champion: log loss 0.0")
    assert world.goes_on(100 * GRID, champion=2.0, challenger=1.0, third=0.2) == []


@pytest.mark.parametrize("seed", range(4))
def test_equal_ones_are_never_promoted(seed: int) -> None:
    """300,000 labels, looked at 293 times, and two that are as good as the champion: chance promotes none."""
    assert World(seed).goes_on(293 * GRID, champion=0.8, challenger=0.8, third=0.8) == []


def test_better_by_less_than_the_margin_is_not_enough() -> None:
    """A loss that is certainly lower, by half a per cent."""
    world = World()
    rng = np.random.default_rng(2)
    for _ in range(20):
        truth = (rng.random(GRID) < 0.02).astype(np.int8)
        ours = np.where(truth == 1, 0.1, 0.02)
        theirs = np.where(truth == 1, 0.1**0.995, 1 - 0.98**0.995)
        world.progressive.add(np.stack([ours, theirs, theirs], axis=1), truth)
        assert judge(world.progressive, world.seat) is None
    closer = np.where(truth == 1, 0.1**0.97, 1 - 0.98**0.97)
    for _ in range(20):
        world.progressive.add(np.stack([ours, closer, theirs], axis=1), truth)
    assert judge(world.progressive, world.seat) is not None


def test_a_champion_that_decays_makes_way_for_the_one_before() -> None:
    """On probation less certainty is needed, and the reason says that it is a rollback."""
    world = World()
    (promoted,) = world.goes_on(32 * BLOCK, champion=1.5, challenger=0.3)
    assert promoted.champion == "challenger"
    verdicts = world.goes_on(PROBATION, champion=0.5, challenger=1.5)
    assert verdicts[0].champion == "champion"
    assert verdicts[0].reason.startswith("rollback: challenger did worse than champion: ")
    later = World(seat=Seat("challenger", "champion", since=-PROBATION))
    assert later.goes_on(64 * BLOCK, champion=0.5, challenger=2.0)[0].reason.startswith("promotion: ")


@pytest.mark.parametrize(
    ("seat", "noise"),
    [
        (Seat("champion", pinned=True), {"champion": 2.0, "challenger": 0.1}),
        (Seat("gone"), {"champion": 2.0, "challenger": 0.1}),
        (Seat("champion"), {"champion": 2.0}),
        (Seat("champion"), {"challenger": 0.1}),
    ],
    ids=["pinned", "another set of recipes", "no scores of the challenger", "no scores of the champion"],
)
def test_without_the_right_or_the_numbers_nothing_changes(seat: Seat, noise: dict[str, float]) -> None:
    """A person's pin stands, and what was not scored cannot be compared."""
    assert World(seat=seat).goes_on(64 * BLOCK, **noise) == []


def test_a_few_events_without_a_score_do_not_stop_the_comparison() -> None:
    """Labels of events from before a recipe was there keep coming for months; most of them missing says nothing."""
    (verdict,) = World().goes_on(64 * BLOCK, unscored=0.02, champion=2.0, challenger=0.2)
    assert verdict.champion == "challenger"
    assert World().goes_on(64 * BLOCK, unscored=0.7, champion=2.0, challenger=0.2) == []


def test_only_what_came_since_the_last_change_counts() -> None:
    """What was better before somebody changed the champion is no reason to change it again."""
    world = World()
    world.seat = Seat("champion", pinned=True)
    world.goes_on(64 * BLOCK, champion=2.0, challenger=0.2)
    world.seat = Seat("champion", since=world.progressive.seen)
    assert world.goes_on(16 * BLOCK - GRID, champion=2.0, challenger=0.2) == []
    assert world.goes_on(64 * BLOCK, champion=2.0, challenger=0.2) != []


def test_without_frauds_nothing_is_said() -> None:
    """Whoever says less is always better as long as no fraud comes: that is no reason."""
    progressive = Progressive(RECIPES)
    for _ in range(16):
        scores = np.random.default_rng(1).random((GRID, 3)) * [0.1, 0.001, 0.1]
        progressive.add(scores, np.zeros(GRID, np.int8))
        assert judge(progressive, Seat("champion")) is None


@pytest.mark.parametrize(("weight", "promoted"), [(1.0, True), (10.0, False)])
def test_a_negative_counts_for_those_that_were_left_out(weight: float, promoted: bool) -> None:
    """The challenger is better with the frauds and worse with the others, which are many more than were learnt."""
    progressive, rng = Progressive(RECIPES), np.random.default_rng(5)
    truth = (rng.random(64 * BLOCK) < 0.05).astype(np.int8)
    ours, theirs = (np.where(truth == 1, pos, neg) for pos, neg in ((0.5, 0.02), (0.9, 0.04)))
    scores = np.stack([ours, theirs, np.full(truth.size, np.nan)], axis=1)
    progressive.add(scores, truth, np.where(truth == 1, 1.0, weight))
    verdict = judge(progressive, Seat("champion"))
    assert (verdict is not None) is promoted
