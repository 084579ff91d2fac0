"""`python -m tests.quality`: the handbook's transactions through the backtest and through the live pipeline.

1. the backtest over all of them, judged by the book's protocol;
2. a replay of the first onto two workers, learner and history on the local servers: every event must be scored, and
   every feature of every event be the backtest's, bit for bit.
"""

import argparse
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
from kafka import KafkaConsumer, TopicPartition

from infra.local import LocalServers
from infra.processes import ROOT, Processes
from schemas.events import Score
from streams.runtime.topics import record_counts
from streams.usecases import FRAUD
from tests.quality import book, handbook

COLUMNS = (
    "event_id=TRANSACTION_ID,event_time=TX_DATETIME,customer_id=CUSTOMER_ID,terminal_id=TERMINAL_ID,"
    "amount=TX_AMOUNT,label=TX_FRAUD"
)
TOPICS = FRAUD.topics(4)
BUILD = ROOT / "build"
PATIENCE = 120.0  # seconds without a new score


def backtest(scores: Path) -> None:
    """Run the backtest over all transactions."""
    scores.parent.mkdir(exist_ok=True)
    begin = time.monotonic()
    done = subprocess.run([*_door("backtest"), "--output", scores], check=False, cwd=ROOT)
    if done.returncode:
        raise SystemExit(done.returncode)  # it has said why
    print(f"the backtest took {time.monotonic() - begin:.0f} s")


def replay(events: int, folder: Path) -> dict[str, Score]:
    """Return the live scores of the first transactions; raise where one is missing."""
    with LocalServers(folder / "servers", progress=True) as servers:
        environment = servers.environment() | {"HEADRACE_MODEL_KEY": "k" * 32, "HEADRACE_PARTITIONS": "4"}
        with Processes(folder / "logs", environment) as processes:
            for name, service in (("w1", "worker"), ("w2", "worker"), ("history", "history"), ("learner", "learner")):
                processes.start(name, f"services.{service}", "fraud")
            processes.wait_ready(90)
            begin = time.monotonic()
            replaying = processes.start("replay", *_door("replay")[2:], "--speed", "max", "--limit", str(events))
            if replaying.popen.wait() != 0:
                raise SystemExit(replaying.epitaph())
            processes.all.remove(replaying)
            _wait_for(servers.kafka.address, events, processes)
            print(f"{events} events replayed and scored in {time.monotonic() - begin:.0f} s")
            return _scores(servers.kafka.address)


def _door(service: str) -> list[str]:
    options = ["--input", str(book.DATA), "--columns", COLUMNS, "--label-delay", "7d"]
    return [sys.executable, "-m", f"services.{service}", "fraud", *options]


def _wait_for(kafka: str, events: int, processes: Processes) -> None:
    seen, at = 0, time.monotonic()
    while seen < events:
        processes.check()
        found = record_counts(kafka, [TOPICS.scores])[TOPICS.scores.name]
        if found > seen:
            seen, at = found, time.monotonic()
        elif time.monotonic() - at > PATIENCE:
            raise SystemExit(f"only {seen} of {events} events were scored")
        time.sleep(0.5)


def _scores(kafka: str) -> dict[str, Score]:
    decode = msgspec.json.Decoder(Score).decode
    consumer = KafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest")
    partitions = [TopicPartition(TOPICS.scores.name, number) for number in range(TOPICS.scores.partitions)]
    consumer.assign(partitions)
    ends = consumer.end_offsets(partitions)
    scores: dict[str, Score] = {}
    while any(consumer.position(tp) < ends[tp] for tp in partitions):
        for records in consumer.poll(timeout_ms=1000).values():
            for score in (decode(record.value) for record in records):
                scores[score.event_id] = score
    consumer.close()
    return scores


def compare(live: dict[str, Score], scores: Path, events: int) -> int:
    """Print which features of which events are not the backtest's; return 1 if any."""
    rows = pq.read_table(scores, columns=["event_id", *FRAUD.features.names]).slice(0, events).to_pylist()
    missing = sum(row["event_id"] not in live for row in rows)
    differing: Counter[str] = Counter()
    for row in rows:
        features = live[row["event_id"]].features if row["event_id"] in live else {}
        differing.update(name for name, value in features.items() if value != row[name])
    print(f"{missing} of {events} events without a score; features that are not the backtest's: {dict(differing)}")
    return 1 if missing or differing else 0


def main() -> int:
    """Run both; the exit code is 1 if anything is wrong, 2 where the data is absent."""
    parser = argparse.ArgumentParser(prog="python -m tests.quality", description=__doc__)
    parser.add_argument("--events", type=int, default=200_000, metavar="N", help="how many to replay (200000)")
    options = parser.parse_args()
    if refusal := book.refusal():
        print(refusal, file=sys.stderr)
        return 2
    scores = BUILD / "handbook.parquet"
    backtest(scores)
    wrong = handbook.judge(scores)
    return compare(replay(options.events, BUILD / "quality"), scores, options.events) or wrong


if __name__ == "__main__":
    sys.exit(main())
