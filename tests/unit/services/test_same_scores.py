"""Live and backtest: the same examples in the same order give the same scores and decisions, to the bit."""

import asyncio
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.codec import encode
from schemas.events import Example, Label, Score
from services.backtest.output import table
from services.backtest.run import backtest
from streams.agents.joiner import example
from streams.agents.models import ModelFeed
from streams.agents.scoring import ScoreWriter, ServingModel
from streams.decisions.lists import EntityLists
from streams.metrics import Metrics
from streams.models.lessons import Lessons, Outcome
from streams.runtime.hop import EVENT, HopRows
from streams.runtime.newest import Logged
from streams.stores import files
from streams.usecases import FRAUD

HOUR, DAY = 3_600_000, 86_400_000
EVENTS, REFRESH = 3_000, 12 * HOUR
KEY = b"k" * 32
FEATURES = FRAUD.features
CUSTOMER = len(FEATURES.stages[0].names)
TERMINAL = len(FEATURES.stages[1].names)


@pytest.fixture
def events(tmp_path: Path) -> files.Events:
    """Payments of which one in ten is a fraud, at two terminals."""
    random = np.random.default_rng(8)
    terminals, amounts = random.integers(0, 10, EVENTS), random.exponential(50, EVENTS).round(2)
    columns = {
        "event_id": [f"e{i}" for i in range(EVENTS)],
        "event_time": 1_700_000_000_000 + np.sort(random.integers(0, 10 * DAY, EVENTS)),
        "customer_id": [f"c{i}" for i in random.integers(0, 50, EVENTS)],
        "terminal_id": [f"t{i}" for i in terminals],
        "amount": amounts,
        "label": ((terminals < 2) & (amounts > 30)).astype(np.int8),
    }
    pq.write_table(pa.table(columns), tmp_path / "events.parquet")
    return files.read(tmp_path / "events.parquet", FRAUD, {})


def hops(features: np.ndarray, times: np.ndarray, first: int) -> tuple[HopRows, np.ndarray]:
    """The events as they reach the last stage, with that stage's features."""
    n, values = len(features), len(FEATURES.values)
    numbers = np.hstack([features[:, :values], np.zeros((n, 1)), features[:, values : values + CUSTOMER]])
    zeros = np.zeros(n, np.int64)
    ids = [f"e{i}" for i in range(first, first + n)]
    rows = HopRows(np.full(n, EVENT, np.int8), zeros, zeros, zeros, times, zeros, numbers, zeros, (ids, ids, ids))
    return rows, features[:, values + CUSTOMER : values + CUSTOMER + TERMINAL].copy()


def served(announcement: bytes) -> ServingModel:
    """What a scorer makes of an announcement."""
    swapped: list[ServingModel] = []
    feed = ModelFeed(FRAUD, "127.0.0.1:1", FRAUD.topics(1), KEY, Metrics("worker"), swapped.append)
    asyncio.run(feed._take(FRAUD.topics(1).models.name, Logged(0, announcement)))
    return swapped[-1]


def test_live_and_backtest_say_the_same(events: files.Events) -> None:
    """The learner's lessons are announced, taken up and serve batches of any size: each score is the backtest's.

    Live, what a score's message says becomes an example's, from which the learner learns one by one; the backtest
    learns by thousands.
    """
    scored = backtest(events, DAY, REFRESH, lambda rows: None)
    offline = table(events, scored).to_pylist()
    writer, nobody = ScoreWriter(FRAUD, Metrics("worker")), EntityLists(FRAUD.verdicts, FRAUD.entities)
    lessons = Lessons(FRAUD.recipes, FEATURES.names, FEATURES.fingerprint)
    decode = msgspec.json.Decoder(Score).decode
    assert events.labels is not None
    learnt, live = 0, list[Score]()
    stops = [start for start, _ in scored.models[1:]] + [EVENTS]
    for (start, _), stop in zip(scored.models, stops, strict=True):
        due = int(np.searchsorted(events.times + DAY, int(events.times[start]) // REFRESH * REFRESH))
        for row in range(learnt, due):
            label = Label(live[row].event_id, int(events.times[row]) + DAY, int(events.labels[row]))  # type: ignore[arg-type]
            message = encode(example(label, live[row], 0, row))
            assert lessons.take(msgspec.json.decode(message, type=Example)) is Outcome.LEARNT
        learnt = due
        model = served(encode(lessons.announce(1, KEY)))
        for at in range(start, stop, 1 + start % 7):
            end = min(at + 1 + start % 7, stop)
            rows, staged = hops(scored.features[at:end], events.times[at:end], at)
            live += map(decode, writer.write(rows, staged, model, nobody, 1)[1])
    assert len(live) == EVENTS
    assert scored.learner.calibrator.to_array()[-2] > 50, "the calibrator has nothing to do"
    for row, score in zip(offline, live, strict=True):
        ours = (score.event_id, score.score, score.raw_score, score.decision, score.model_id)
        assert ours == (row["event_id"], row["score"], row["raw_score"], row["decision"], row["model_id"])
        assert score.features == {name: row[name] for name in FEATURES.names}
    assert any(row["score"] != row["raw_score"] for row in offline)
