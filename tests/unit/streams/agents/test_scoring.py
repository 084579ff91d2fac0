"""Scores as they are written: read back with the public schema, they say what was computed."""

from math import inf, nan
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from schemas.events import Reason, Score
from streams.agents.scoring import FALLBACK, Challenger, ScoreWriter, ServingModel
from streams.decisions.lists import EntityLists
from streams.features.vector import assemble
from streams.metrics import Metrics
from streams.models.calibration import Calibrator
from streams.models.compiled import scorer
from streams.models.recipes import RECIPES
from streams.runtime.hop import EVENT, FROM_EVENTS, HopFormat, HopRows
from streams.usecases import FRAUD

NOW = 1_700_000_000_123
FEATURES = FRAUD.features
METRICS = Metrics("worker")
WRITER = ScoreWriter(FRAUD, METRICS)
NOBODY = EntityLists(FRAUD.verdicts, FRAUD.entities)
STAGED = len(FEATURES.stages[1].names)
UNLEARNT = scorer(RECIPES[FRAUD.recipes[0]].make(FEATURES.names), FEATURES.names)

decode = msgspec.json.Decoder(Score).decode
drawn = settings(deadline=None, max_examples=50)

ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6) | st.just('"\\\n\u2028')


def calibrator() -> Calibrator:
    """One that has learnt to halve the log odds."""
    random = np.random.default_rng(3)
    true = random.normal(-2.0, 1.5, 20_000)
    labels = (random.random(20_000) < 1 / (1 + np.exp(-true))).astype(np.int8)
    taught = Calibrator()
    taught.learn_many(1 / (1 + np.exp(-2 * true)), labels, np.ones(20_000))
    return taught


CALIBRATOR = calibrator()


def model(score: object = UNLEARNT, model_id: str = "logistic@7", **more: object) -> ServingModel:
    return ServingModel(model_id, score, 5, **more)  # type: ignore[arg-type]


def saying(*scores: float, model_id: str = "m@1", **more: object) -> ServingModel:
    """A model with these raw scores, whatever the events."""
    return model(lambda rows: np.array(scores[: len(rows)]), model_id, **more)


def event_rows(n: int, texts: list[str] | None = None, seed: int = 0) -> tuple[HopRows, np.ndarray]:
    """Events as they reach the last stage, and that stage's features."""
    random = np.random.default_rng(seed)
    numbers = random.exponential(1000.0, (n, HopFormat(FEATURES, 1).numbers))
    numbers[:, len(FEATURES.values)] = 0.0
    rows = HopRows(
        kinds=np.full(n, EVENT, np.int8),
        source_topics=np.full(n, FROM_EVENTS, np.int64),
        source_partitions=np.zeros(n, np.int64),
        source_offsets=np.arange(n),
        times=random.integers(0, NOW, n),
        received=random.integers(0, NOW, n),
        numbers=numbers,
        positions=np.arange(n),
        texts=tuple(texts or [f"{name}{i}" for i in range(n)] for name in "ect"),
    )
    return rows, random.exponential(10.0, (n, STAGED))


def written(
    rows: HopRows, staged: np.ndarray, serving: ServingModel, writer: ScoreWriter = WRITER, lists: EntityLists = NOBODY
) -> tuple[list[bytes], list[Score]]:
    keys, values = writer.write(rows, staged, serving, lists, NOW)
    return keys, [decode(value) for value in values]


def vectors_of(rows: HopRows, staged: np.ndarray) -> NDArray[np.float64]:
    earlier = rows.numbers[:, len(FEATURES.values) + 1 :]
    return assemble(FEATURES, rows.times, rows.numbers, [earlier, staged])


@drawn
@given(st.lists(ids, max_size=6), st.integers(0, 2**32))
def test_a_score_is_read_back_as_it_was_made(texts: list[str], seed: int) -> None:
    """Every field of every message, over any ids and numbers: features by name are `assemble`'s, bit for bit."""
    rows, staged = event_rows(len(texts), texts, seed)
    keys, scores = written(rows, staged, model(calibrator=CALIBRATOR))
    vectors = vectors_of(rows, staged)
    assert keys == [text.encode() for text in texts]
    raw = UNLEARNT(vectors)
    calibrated = CALIBRATOR.apply(raw)
    verdicts = FRAUD.verdicts.give(vectors, calibrated).verdicts
    for i, score in enumerate(scores):
        assert score == Score(
            event_id=texts[i],
            event_time=int(rows.times[i]),
            entities={"customer": texts[i], "terminal": texts[i]},
            features=dict(zip(FEATURES.names, vectors[i].tolist(), strict=True)),
            score=float(calibrated[i]),
            decision=FRAUD.verdicts.decisions[verdicts[i]],
            model_id="logistic@7",
            feature_set=FEATURES.fingerprint,
            received_at=int(rows.received[i]),
            scored_at=NOW,
            raw_score=float(raw[i]),
            policy=FRAUD.policy.version,
            rule=FRAUD.verdicts.rules[verdicts[i]],
        )


def test_the_features_are_in_their_columns() -> None:
    """The values, each stage's features and the derived ones are found under their own names."""
    rows, staged = event_rows(1)
    _, (score,) = written(rows, staged, model())
    values = len(FEATURES.values)
    customer, terminal = FEATURES.stages
    assert score.features["amount"] == rows.numbers[0, 0]
    assert [score.features[name] for name in customer.names] == rows.numbers[0, values + 1 :].tolist()
    assert [score.features[name] for name in terminal.names] == staged[0].tolist()
    assert list(score.features) == list(FEATURES.names)
    assert score.features["is_night"] in (0.0, 1.0)


def test_the_model_is_asked_once_a_batch() -> None:
    """The scorer sees all vectors at once; raw and calibrated score and the model's id are in the messages."""
    seen = []
    raw = np.array([0.0, 0.2, 0.6, 1.0, np.nextafter(0.6, 0)])

    def score(vectors: np.ndarray) -> np.ndarray:
        seen.append(vectors)
        return raw

    rows, staged = event_rows(5)
    _, scores = written(rows, staged, model(score, "forest@9", calibrator=CALIBRATOR))
    assert len(seen) == 1
    assert (seen[0] == vectors_of(rows, staged)).all()
    assert [one.raw_score for one in scores] == raw.tolist()
    assert [one.score for one in scores] == CALIBRATOR.apply(raw).tolist() != raw.tolist()
    assert [one.decision for one in scores] == FRAUD.verdicts.decide(seen[0], CALIBRATOR.apply(raw))
    assert {one.model_id for one in scores} == {"forest@9"}


@drawn
@given(st.integers(1, 6), st.integers(0, 6))
def test_a_score_does_not_depend_on_its_batch(n: int, cut: int) -> None:
    """Cut anywhere, the same messages: shadows and reasons too."""
    rows, staged = event_rows(n)
    explainer = SimpleNamespace(effects=lambda vectors: vectors - 500.0)
    serving = model(
        calibrator=CALIBRATOR, explainer=explainer, challengers=(Challenger("other", UNLEARNT, CALIBRATOR),)
    )
    halves = [np.arange(n)[:cut], np.arange(n)[cut:]]
    parts = [WRITER.write(rows.take(half), staged[half], serving, NOBODY, NOW) for half in halves]
    whole = WRITER.write(rows, staged, serving, NOBODY, NOW)
    assert tuple(left + right for left, right in zip(*parts, strict=True)) == whole


def test_challengers_score_in_the_shadow() -> None:
    """Their calibrated scores are there by recipe, and change nothing else."""
    rows, staged = event_rows(3)
    divisors = {"a-2": 4, "b c": 9}
    others = tuple(
        Challenger(name, lambda rows, by=by: np.arange(len(rows)) / by, CALIBRATOR) for name, by in divisors.items()
    )
    _, alone = written(rows, staged, model())
    _, scores = written(rows, staged, model(challengers=others))
    for i, score in enumerate(scores):
        said = {name: float(CALIBRATOR.apply(np.array([i / by]))[0]) for name, by in divisors.items()}
        assert score.shadow == said
        assert msgspec.structs.replace(score, shadow={}) == alone[i]


@pytest.mark.parametrize("unfit", [nan, inf, -inf, 1.5])
def test_a_challenger_without_a_score_says_nothing(unfit: float) -> None:
    """The event has the other challengers' scores, and it is counted."""
    metrics = Metrics("worker")
    others = (
        Challenger("broken", lambda rows: np.array([0.5, unfit]), Calibrator()),
        Challenger("sound", lambda rows: np.array([0.1, 0.2]), Calibrator()),
    )
    _, scores = written(*event_rows(2), model(challengers=others), ScoreWriter(FRAUD, metrics))
    assert [one.shadow for one in scores] == [{"broken": 0.5, "sound": 0.1}, {"sound": 0.2}]
    assert metrics.registry.get_sample_value("headrace_scores_not_finite_total", {"alias": "challenger"}) == 1


def test_reasons_name_the_features_that_moved_the_score() -> None:
    """The three strongest effects, the strongest first, fewer where fewer moved it; none without an explainer."""
    effects = np.zeros((2, len(FEATURES.names)))
    effects[0, [1, 4, 5, 7]] = [0.5, -2.0, 1.25, 0.1]
    effects[1, 3] = 0.12345
    rows, staged = event_rows(2)
    _, scores = written(rows, staged, model(explainer=SimpleNamespace(effects=lambda vectors: effects)))
    names = FEATURES.names
    assert scores[0].reasons == [Reason(names[4], -2.0), Reason(names[5], 1.25), Reason(names[1], 0.5)]
    assert [(one.feature, one.effect) for one in scores[1].reasons] == [(names[3], pytest.approx(0.12345, abs=1e-4))]
    assert written(rows, staged, model())[1][0].reasons == []


def test_an_effect_that_is_no_number_is_no_reason() -> None:
    """What JSON could not say does not leave."""
    effects = np.zeros((1, len(FEATURES.names)))
    effects[0, :3] = [nan, inf, 0.5]
    _, scores = written(*event_rows(1), model(explainer=SimpleNamespace(effects=lambda vectors: effects)))
    assert scores[0].reasons == [Reason(FEATURES.names[2], 0.5)]


def test_lists_decide_and_are_named() -> None:
    """A blocked customer is declined whatever the score, and the score itself stays."""
    lists = EntityLists(FRAUD.verdicts, FRAUD.entities)
    lists.put("customer", "c1", "block")
    lists.put("terminal", "t0", "allow")
    _, scores = written(*event_rows(3), saying(1.0, 0.0, 0.0), lists=lists)
    assert [(one.decision, one.rule) for one in scores] == [
        ("approve", "allow terminal"), ("decline", "block customer"), ("review", "customer_tx_count_10m > 10"),
    ]  # fmt: skip
    assert [one.score for one in scores] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("unfit", [nan, inf, -inf, 1.5])
def test_what_is_no_score_never_leaves(unfit: float) -> None:
    """Where the champion has no score the model before it has, the prior where there is none; both say so."""
    metrics = Metrics("worker")
    writer = ScoreWriter(FRAUD, metrics)
    rows, staged = event_rows(3)
    rows.numbers[:] = 1.0  # no rule fits

    def said(serving: ServingModel) -> list[tuple[float, float | None, str, str]]:
        scores = written(rows, staged, serving, writer)[1]
        assert all(one.decision == FRAUD.verdicts.decide(vectors_of(rows, staged)[i : i + 1], np.array([one.score]))[0]
                   for i, one in enumerate(scores))  # fmt: skip
        return [(one.score, one.raw_score, one.model_id, one.rule) for one in scores]

    prior = (FRAUD.policy.prior, FRAUD.policy.prior, "prior", FALLBACK)
    assert said(saying(0.0, unfit, 0.0))[1] == prior  # nothing was in use before
    assert said(saying(0.3, 0.3, 0.3, model_id="m@2"))[1][2] == "m@2"
    for broken in ("m@3", "m@4", "m@4"):  # two broken ones in a row: the last that was not is kept
        assert [one[:3] for one in said(saying(0.5, 0.5, unfit, model_id=broken))] == [
            (0.5, 0.5, broken), (0.5, 0.5, broken), (0.3, 0.3, "m@2"),
        ]  # fmt: skip
    assert metrics.registry.get_sample_value("headrace_scores_not_finite_total", {"alias": "champion"}) == 4


@pytest.mark.parametrize("error", [OverflowError("math range error"), ValueError("math domain error")])
def test_a_model_that_breaks_down_is_no_score(error: Exception) -> None:
    """Arithmetic that fails in a model costs its scores, or their reasons, not the worker."""

    def fail(rows: np.ndarray) -> np.ndarray:
        raise error

    _, scores = written(*event_rows(2), model(fail, "m@9"), ScoreWriter(FRAUD, Metrics("worker")))
    assert [one.model_id for one in scores] == ["prior", "prior"]
    _, scores = written(*event_rows(2), model(explainer=SimpleNamespace(effects=fail)))
    assert [(one.model_id, one.reasons) for one in scores] == [("logistic@7", [])] * 2
