"""The baseline: fraud scoring in Faust as its tutorials write it, one event at a time.

For every event: one Redis pipeline that updates and reads the counters of customer and terminal, River's
`predict_proba_one` and `learn_one`, one send. Competent and ordinary: asynchronous Redis with hiredis, one round
trip an event, no waiting for the send. It gives less than the pipeline does: its windows are calendar buckets,
its label comes with the event, and a crash loses or repeats what was in flight.
"""

import os

import faust
from redis.asyncio import Redis
from river import linear_model, preprocessing

from tests.bench.workload import DAY_MS

EVENTS, SCORES = "plain.transactions", "plain.scores"
WINDOW_DAYS = (1, 7, 30)


class Transaction(faust.Record, serializer="json"):
    event_id: str
    event_time: int
    customer_id: str
    terminal_id: str
    amount: float
    currency: str
    merchant_category: str
    country: str
    device: str
    channel: str
    label: int


class Score(faust.Record, serializer="json"):
    event_id: str
    event_time: int
    customer_id: str
    terminal_id: str
    features: dict[str, float]
    score: float


app = faust.App(
    "plain-fraud",
    broker=f"kafka://{os.environ.get('HEADRACE_KAFKA', '127.0.0.1:9092')}",
    store="memory://",
    datadir=os.environ.get("HEADRACE_BENCH_FOLDER", "build/bench"),
    consumer_auto_offset_reset="earliest",
    topic_disable_leader=True,
    worker_redirect_stdouts=False,
    stream_wait_empty=False,
)
transactions = app.topic(EVENTS, value_type=Transaction)
scores = app.topic(SCORES, value_type=Score)
redis = Redis.from_url(os.environ.get("HEADRACE_REDIS", "redis://127.0.0.1:6379/0"))
model = preprocessing.StandardScaler() | linear_model.LogisticRegression()


async def window_features(event: Transaction) -> dict[str, float]:
    """Count the event into the windows of its customer and terminal; return count and mean of each."""
    pipeline = redis.pipeline(transaction=False)
    for entity, key in (("customer", event.customer_id), ("terminal", event.terminal_id)):
        name = f"plain:{entity}:{key}"
        for days in WINDOW_DAYS:
            bucket = f"{days}d:{event.event_time // (days * DAY_MS)}"
            pipeline.hincrby(name, f"{bucket}:count", 1)
            pipeline.hincrbyfloat(name, f"{bucket}:sum", event.amount)
        pipeline.expire(name, 31 * 86_400)
    replies = iter(await pipeline.execute())
    features = {}
    for entity in ("customer", "terminal"):
        for days in WINDOW_DAYS:
            count, total = next(replies), next(replies)
            features[f"{entity}_count_{days}d"] = float(count)
            features[f"{entity}_mean_{days}d"] = total / count
        next(replies)
    return features


def event_features(event: Transaction) -> dict[str, float]:
    """Return the features of the event itself."""
    hour = event.event_time // 3_600_000 % 24
    weekday = (event.event_time // DAY_MS + 3) % 7
    return {
        "amount": event.amount,
        "is_night": float(hour <= 6),
        "is_weekend": float(weekday >= 5),
    }


@app.agent(transactions, name="plain-score")
async def score(events: faust.StreamT[Transaction]) -> None:
    """Score every event, learn from it, send the score."""
    async for event in events:
        features = event_features(event) | await window_features(event)
        probability = model.predict_proba_one(features).get(True, 0.5)
        model.learn_one(features, bool(event.label))
        await scores.send(
            key=event.customer_id,
            value=Score(
                event_id=event.event_id,
                event_time=event.event_time,
                customer_id=event.customer_id,
                terminal_id=event.terminal_id,
                features=features,
                score=probability,
            ),
        )


if __name__ == "__main__":
    app.main()
