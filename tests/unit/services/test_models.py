"""The registry's tool: what it takes is what was signed, what it refuses changes nothing, and relearning forgets."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing

import msgspec
import numpy as np
import pytest

from schemas.codec import encode
from schemas.events import AliasChange, Example, ModelAnnouncement, ModelSnapshot
from services.models import output
from services.models.__main__ import main
from services.models.choice import Choice, Refused
from services.models.compare import compare, differences, weights
from services.models.look import Marks
from services.models.relearn import Relearnt, Stored, relearn
from streams.models import lessons as lessons_module
from streams.models.judge import Seat, Verdict
from streams.models.lessons import Lessons
from streams.models.recipes import RECIPES
from streams.models.snapshot import ForeignSnapshot, ForgedSnapshot, SnapshotRefused
from streams.runtime import topics
from streams.stores.registry import Keep, changed, registered
from streams.stores.registry_memory import MemoryRegistry
from streams.usecases import FRAUD
from tests import weights as bits

KEY = b"k" * 32
NAMES, OURS = FRAUD.features.names, FRAUD.features.fingerprint
RECIPE = FRAUD.recipes[0]
HOUR = 3_600_000


def example(number: int) -> Example:
    rng = np.random.default_rng(number)
    row = rng.normal(size=len(NAMES))
    return Example(
        f"e{number}", 1000, 2000, int(row[0] > 1), dict(zip(NAMES, row.tolist(), strict=True)), 0.5, f"{RECIPE}@0",
        OURS, label_partition=0, label_offset=number,
    )  # fmt: skip


def fresh(feature_set: str = OURS) -> Lessons:
    return Lessons(FRAUD.recipes, NAMES, feature_set)


def announced(
    learnt: int, created_at: int = HOUR, key: bytes = KEY, feature_set: str = OURS, resumable: bool = True
) -> ModelAnnouncement:
    """What a learner announces that has learnt so many examples."""
    lessons = fresh(feature_set)
    for number in range(learnt):
        lessons.take(msgspec.structs.replace(example(number), feature_set=feature_set))
    lessons.offsets[0] = learnt
    return lessons.announce(created_at, key, resumable)


def of_recipe(announcement: ModelAnnouncement, recipe: str = RECIPE) -> ModelSnapshot:
    return next(one for one in announcement.models if one.recipe == recipe)


class Forgetful(MemoryRegistry):
    """A registry that has lost the records that are not kept long."""

    async def record(self, announcement: str) -> bytes | None:
        async with aclosing(self.newest(2**53)) as rows:
            kept = {row.announcement async for row in rows if row.kept_until > row.created_at + 80 * 24 * HOUR}
        return await super().record(announcement) if announcement in kept else None


def kept(
    *announcements: ModelAnnouncement, store: MemoryRegistry | None = None, keep: Keep = Keep.TWO_DAYS
) -> MemoryRegistry:
    store = store or MemoryRegistry()
    for one in announcements:
        asyncio.run(store.write(encode(one), one.models, keep))
    return store


def named(store: MemoryRegistry, model_id: str) -> ModelSnapshot:
    return asyncio.run(Choice(store, FRAUD, KEY).named(model_id))


def test_a_model_is_taken_by_its_name() -> None:
    """The snapshot in the registry is the one that was announced, the newest where a name came again."""
    store = kept(announced(3), announced(5), announced(3, created_at=2 * HOUR))
    assert named(store, f"{RECIPE}@3") == of_recipe(announced(3, created_at=2 * HOUR))


def test_what_cannot_be_used_is_refused_with_the_reason() -> None:
    """An unknown name, another key, altered bytes, another feature set, and one whose bytes are gone."""
    store = kept(announced(3, key=b"x" * 32), announced(4, feature_set="f" * 16))
    one = announced(5)
    altered = msgspec.structs.replace(of_recipe(one), metrics={"auc": 1.0})
    others = [snapshot for snapshot in one.models if snapshot.recipe != RECIPE]
    kept(msgspec.structs.replace(one, models=[altered, *others]), store=store)
    with pytest.raises(Refused, match=f"no model {RECIPE}@9"):
        named(store, f"{RECIPE}@9")
    with pytest.raises(ForgedSnapshot, match=f"{RECIPE}@3"):
        named(store, f"{RECIPE}@3")
    with pytest.raises(ForeignSnapshot, match=f"feature set {'f' * 16}, not {OURS}"):
        named(store, f"{RECIPE}@4")
    with pytest.raises(ForgedSnapshot, match=f"{RECIPE}@5"):
        named(store, f"{RECIPE}@5")
    with pytest.raises(Refused, match="not kept any more"):
        named(kept(announced(3), store=Forgetful()), f"{RECIPE}@3")


def test_relearning_begins_with_what_can_be_gone_on_from() -> None:
    """A snapshot that was announced to scorers only leads to the last announcement before it that holds the rest."""
    whole = [announced(3), announced(7, created_at=HOUR + 3), announced(9, created_at=HOUR + 5)]
    light = [announced(2, HOUR - 1, resumable=False), announced(8, HOUR + 4, resumable=False)]
    choice = Choice(kept(*whole, *light), FRAUD, KEY)
    for learnt, offset in ((3, 3), (8, 7), (9, 9)):
        found = asyncio.run(choice.resumable(f"{RECIPE}@{learnt}"))
        assert found.course
        assert found.example_offsets == {0: offset}
    with pytest.raises(Refused, match="announced to scorers only"):
        asyncio.run(choice.resumable(f"{RECIPE}@2"))


def test_a_name_of_ours_goes_before_a_newer_foreign_one() -> None:
    """After another feature set was tried, our model of the same name is still to be had."""
    store = kept(announced(3), announced(3, created_at=2 * HOUR, feature_set="f" * 16))
    assert named(store, f"{RECIPE}@3") == of_recipe(announced(3))


def test_a_record_that_is_none_is_refused() -> None:
    """Bytes in the registry that are no announcement, or not that of the model, are refused by the model's name."""
    store, one = MemoryRegistry(), of_recipe(announced(3))
    asyncio.run(store.write(b"{}", [one], Keep.LONG))
    with pytest.raises(SnapshotRefused, match=f"{RECIPE}@3"):
        named(store, f"{RECIPE}@3")
    other = MemoryRegistry()
    asyncio.run(other.write(encode(announced(4)), [one], Keep.LONG))
    with pytest.raises(SnapshotRefused, match="not in the announcement"):
        named(other, f"{RECIPE}@3")


def change(recipe: str, created_at: int, model: ModelSnapshot | None = None, reason: str = "why") -> AliasChange:
    return AliasChange("champion", recipe, "operator", reason, created_at, model)


def before(store: MemoryRegistry, told: Sequence[tuple[int, AliasChange]], last: AliasChange) -> str:
    """What is gone back to from `last`, when these changes were told at those times."""
    for offset, (time, one) in enumerate(told):
        asyncio.run(store.write_change(changed(one, time, offset)))
    return asyncio.run(Choice(store, FRAUD, KEY).before(last, 2 * HOUR)).model_id


def test_a_rollback_goes_to_what_was_champion_before_the_last_change() -> None:
    """Without a change before it, the use case's first recipe as it was then; else what that change said."""
    #  @3    @4  A  @5  B    @6
    models = [announced(3, 10), announced(4, 20), announced(5, 30), announced(6, 40)]
    a, b = change(RECIPE, 25, of_recipe(models[0])), change(RECIPE, 35)
    assert before(kept(*models), [(25, a)], a) == f"{RECIPE}@4"
    assert before(kept(*models), [(25, a), (35, b)], b) == f"{RECIPE}@3"
    c = change(RECIPE, 45, of_recipe(models[1]))
    assert before(kept(*models), [(25, a), (35, b), (45, c)], c) == f"{RECIPE}@6"


def test_a_change_that_was_told_again_is_one_change() -> None:
    """The learner repeats a person's pin over a late change of its own: what was before is before both."""
    models = [announced(3, 10), announced(4, 20), announced(5, 26)]
    pin, late = change(RECIPE, 25, of_recipe(models[0])), change(RECIPE, 26, reason="too late")
    assert before(kept(*models), [(25, pin), (26, late), (27, pin)], pin) == f"{RECIPE}@4"


def test_a_rollback_finds_the_newest_that_is_still_kept() -> None:
    """Where the bytes of the last one are gone, or about to go as their time is over, the one before it."""
    a = change(RECIPE, 35)
    gone = kept(announced(3, 10), store=Forgetful(), keep=Keep.LONG)
    assert before(kept(announced(4, 20), store=gone), [(35, a)], a) == f"{RECIPE}@3"
    going = kept(announced(3, 10))
    assert before(kept(announced(4, 20), store=going, keep=Keep.AN_HOUR), [(35, a)], a) == f"{RECIPE}@3"


def test_a_rollback_from_nowhere_is_refused() -> None:
    """A change the registry has not met, and one with nothing before it, name what to do."""
    with pytest.raises(Refused, match="has not met the last change"):
        before(kept(announced(3)), [], change(RECIPE, 5))
    a = change(RECIPE, 5)
    with pytest.raises(Refused, match=f"keeps no {RECIPE} from before"):
        before(kept(announced(3)), [(5, a)], a)


def test_marks_say_who_is_champion() -> None:
    """Without a change the newest of the first recipe; of a recipe its newest; of a pin that very snapshot."""
    rows = [registered(b"", [of_recipe(announced(learnt, learnt))], Keep.LONG)[0] for learnt in (5, 4, 3)]

    def said(aliases: dict[str, AliasChange]) -> list[list[str]]:
        marks = Marks(aliases, RECIPE, OURS)
        return [marks.of(row) for row in rows]

    assert said({}) == [["champion"], [], []]
    assert said({"champion": change("other", 1)}) == [[], [], []]
    pinned = change(RECIPE, 1, of_recipe(announced(4, 4)))
    assert said({"champion": pinned}) == [[], ["champion (pinned)"], []]
    assert Marks({}, "other", "f" * 16).of(rows[0]) == ["other features"]


def test_a_difference_says_what_moved() -> None:
    """Of what is said, both sides and the change; of weights the norms, and the parts that moved most first."""
    a, b = (registered(b"", [of_recipe(announced(learnt))], Keep.LONG)[0] for learnt in (3, 5))
    by_name = {row.name: row for row in differences(a, b)}
    assert (by_name["examples_learnt"].a, by_name["examples_learnt"].change) == (3, 2)
    assert by_name["example_offset 0"].change == 2
    assert by_name["recipe"].change is None
    moved = compare({"x": np.array([3.0]), "y": np.array([0.0])}, {"x": np.array([3.0]), "y": np.array([4.0])}, 5)
    assert moved == (3.0, 5.0, 4.0, 1, [("y", 4.0)])
    assert compare({"x": np.zeros(2)}, {"y": np.zeros(2)}, 5) is None
    assert compare({}, {}, 5) is None


def test_weights_are_a_models_by_feature() -> None:
    """A linear model's weights bear the features' names, also before it has met them."""
    model = RECIPES["logistic"].make(("amount", "count"))
    model.learn_one({"amount": 2.0, "count": 1.0}, True)
    model.learn_one({"amount": 4.0, "count": 1.0}, True)
    found = weights(model, ("amount", "count"))
    assert list(found) == ["amount", "count", "intercept"]
    assert found["amount"] > 0
    unlearnt = weights(RECIPES["logistic"].make(("amount",)), ("amount", "count"))
    assert compare(found, unlearnt, 1) is not None


def test_weights_of_bins_are_compared_where_they_are() -> None:
    """An estimator that stores only what it has touched is compared with one that has touched more."""
    names = ("amount", "count")
    a, b = RECIPES["binned"].make(names), RECIPES["binned"].make(names)
    for model, amounts in (a, [3.0]), (b, [3.0, 400.0]):
        for amount in amounts:
            model.learn_one({"amount": amount, "count": 1.0}, True)
    moved = compare(weights(a, names), weights(b, names), 5)
    assert moved is not None
    assert compare(weights(a, names), weights(a, names), 5) == (moved.a, moved.a, 0.0, 0, [])
    assert moved.distance > 0
    assert moved.moved > 1


async def stream(values: Iterable[bytes | None], first: int, size: int) -> AsyncIterator[list[Stored]]:
    records = [Stored(first + at, value) for at, value in enumerate(values)]
    for at in range(0, len(records), size):
        yield records[at : at + size]


def relearnt(lessons: Lessons, values: Iterable[bytes | None], *without: str, first: int = 0) -> Relearnt:
    champion = AliasChange("champion", RECIPE, "learner", "", 1, judged=16)
    return asyncio.run(relearn(lessons, stream(values, first, 7), set(without), 10_000, 4, champion))


@pytest.mark.parametrize("learnt", [0, 20])
def test_what_is_left_out_was_never_learnt(learnt: int) -> None:
    """From any announcement before it, without a poisoned example, the weights are those of a learner that never met
    it, bit for bit; what is poison for the learner is passed over here too, and offsets are the same."""
    given = [example(number) for number in range(60)]
    poison = msgspec.structs.replace(given[30], features=dict.fromkeys(NAMES, 1e6), label=1)
    correction = msgspec.structs.replace(poison, label_offset=99)
    values = [*map(encode, given[:30]), encode(poison), b"\xff", None, *map(encode, given[31:]), encode(correction)]

    lessons = fresh()
    if learnt:
        lessons = Lessons.resume(announced(learnt), FRAUD.recipes, NAMES, OURS, KEY)
    assert relearnt(lessons, values[learnt:], "e30", first=learnt) == Relearnt(59 - learnt, 2, 0)

    never = fresh()
    for one in given[:30] + given[31:]:
        never.take(one)
    met = fresh()
    for one in [*given[:30], poison, *given[31:], correction]:
        met.take(one)
    for recipe in FRAUD.recipes:
        model = bits.weights(lessons.learners[recipe].model)
        assert model == bits.weights(never.learners[recipe].model)
        assert model != bits.weights(met.learners[recipe].model)
    assert lessons.offsets == {0: len(values)}


def test_what_is_left_out_stays_out() -> None:
    """Its example, sent again by a join that had crashed, counts as seen."""
    lessons, values = fresh(), [encode(example(number)) for number in range(9)]
    relearnt(lessons, values, "e4")
    assert lessons.take(example(4)) == "duplicate"


def test_what_is_left_out_makes_nothing_before_it_old() -> None:
    """However far apart the labels of the examples are that are read at once, as most negatives are not learnt."""
    far = [msgspec.structs.replace(example(number), label_offset=5_000 * number) for number in range(7)]
    assert relearnt(fresh(), map(encode, far), "e6") == Relearnt(6, 1, 0)


def test_the_champion_stays_who_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another is decided on the way, and not told: scorers, and the learner after it, go by the alias topic."""
    monkeypatch.setattr(lessons_module, "GRID", 16)
    monkeypatch.setattr(lessons_module, "judge", lambda *_: Verdict("logistic", "promotion"))
    lessons = fresh()
    relearnt(lessons, [encode(example(number)) for number in range(40)], "e4")
    assert (lessons.seat, lessons.changes) == (Seat(RECIPE, since=39), [])


def test_an_event_that_was_not_learnt_since_is_named() -> None:
    """Nothing is announced where a name is wrong, or the snapshot is from after the example."""
    with pytest.raises(Refused, match="e7 and 1 more: no example"):
        relearnt(fresh(), [encode(example(number)) for number in range(3)], "e1", "e7", "e8")


def test_text_of_others_does_not_reach_the_terminal_raw() -> None:
    """Neither a reason nor a model's name can move the cursor; measures that are not there are dashes."""
    one = msgspec.structs.replace(of_recipe(announced(3)), model_id="\x1b[2J@3", metrics={"auc": 0.5, "log_loss": 1.0})
    other = msgspec.structs.replace(of_recipe(announced(4)), metrics={})
    rows = registered(b"", [one, other], Keep.LONG)
    lines = output.table([(row, ["champion"]) for row in rows])
    assert "\x1b" not in "".join(lines)
    assert lines[0].split("  ")[0] == "MADE (UTC)"
    assert "-" in lines[2].split()
    told = output.changes([changed(change(RECIPE, 5, reason="\x1b]0;x\x07"), 7, 0)])
    assert "\x1b" not in "".join(told)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["promote", "logistic"], "--reason"),
        (["promote", "logistic", "--reason", " "], "must say something"),
        (["list", "--limit", "0"], "above 0"),
        (["list", "--before", "soon"], "soon"),
        (["relearn", "--without", "e1"], "--from"),
        (["relearn", "--from", "start"], "--without"),
        (["diff", "a@1"], "B"),
    ],
)
def test_a_wrong_argument_is_named(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is asked of a server: exit 2."""
    with pytest.raises(SystemExit) as ended:
        main(["fraud", *arguments])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err.splitlines()[-1]


def test_servers_out_of_reach_are_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 1 and where nobody answered."""
    monkeypatch.setenv("HEADRACE_KAFKA", "127.0.0.1:1")
    monkeypatch.setattr(topics, "REACH_MS", 500)
    assert main(["fraud", "list"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: Kafka at 127.0.0.1:1 does not answer")
