"""Scores as they are written: read back with the public schema, they say what was computed."""

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import Score
from streams.agents.scoring import ScoreWriter, ServingModel
from streams.features.vector import assemble
from streams.models.compiled import scorer
from streams.models.recipes import RECIPES
from streams.runtime.hop import EVENT, FROM_EVENTS, HopFormat, HopRows
from streams.usecases import FRAUD

NOW = 1_700_000_000_123
FEATURES = FRAUD.features
WRITER = ScoreWriter(FRAUD)
STAGED = len(FEATURES.stages[1].names)
UNLEARNT = scorer(RECIPES[FRAUD.recipes[0]].make(FEATURES.names), FEATURES.names)

decode = msgspec.json.Decoder(Score).decode
drawn = settings(deadline=None, max_examples=50)

ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6) | st.just('"\\\n\u2028')


def model(score: object = UNLEARNT, model_id: str = "logistic@7") -> ServingModel:
    return ServingModel(model_id, score, 5)  # type: ignore[arg-type]


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


def written(rows: HopRows, staged: np.ndarray, serving: ServingModel) -> tuple[list[bytes], list[Score]]:
    keys, values = WRITER.write(rows, staged, serving, NOW)
    return keys, [decode(value) for value in values]


@drawn
@given(st.lists(ids, max_size=6), st.integers(0, 2**32))
def test_a_score_is_read_back_as_it_was_made(texts: list[str], seed: int) -> None:
    """Every field of every message, over any ids and numbers: features by name are `assemble`'s, bit for bit."""
    rows, staged = event_rows(len(texts), texts, seed)
    keys, scores = written(rows, staged, model())
    earlier = rows.numbers[:, len(FEATURES.values) + 1 :]
    vectors = assemble(FEATURES, rows.times, rows.numbers, [earlier, staged])
    assert keys == [text.encode() for text in texts]
    for i, score in enumerate(scores):
        assert score == Score(
            event_id=texts[i],
            event_time=int(rows.times[i]),
            entities={"customer": texts[i], "terminal": texts[i]},
            features=dict(zip(FEATURES.names, vectors[i].tolist(), strict=True)),
            score=float(UNLEARNT(vectors[i : i + 1])[0]),
            decision=FRAUD.verdicts.decide(vectors[i : i + 1], UNLEARNT(vectors[i : i + 1]))[0],
            model_id="logistic@7",
            feature_set=FEATURES.fingerprint,
            received_at=int(rows.received[i]),
            scored_at=NOW,
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


def test_the_scorer_sees_the_vectors_and_its_score_decides() -> None:
    """The model in use is asked once a batch; its scores, its id and the policy's decisions are in the messages."""
    seen = []
    given_scores = np.array([0.0, 0.2, 0.6, 1.0, np.nextafter(0.6, 0)])

    def score(vectors: np.ndarray) -> np.ndarray:
        seen.append(vectors)
        return given_scores

    _, scores = written(*event_rows(5), model(score, "forest@9"))
    (vectors,) = seen
    assert [one.score for one in scores] == given_scores.tolist()
    assert [one.decision for one in scores] == FRAUD.verdicts.decide(vectors, given_scores)
    assert {one.model_id for one in scores} == {"forest@9"}


@drawn
@given(st.integers(1, 6), st.integers(0, 6))
def test_a_score_does_not_depend_on_its_batch(n: int, cut: int) -> None:
    """Cut anywhere, the same messages."""
    rows, staged = event_rows(n)
    halves = [np.arange(n)[:cut], np.arange(n)[cut:]]
    parts = [WRITER.write(rows.take(half), staged[half], model(), NOW) for half in halves]
    whole = WRITER.write(rows, staged, model(), NOW)
    assert tuple(left + right for left, right in zip(*parts, strict=True)) == whole
