"""The simulator: reproducible, as busy and as fraudulent as it says, and learnable."""

import json
import threading
import time
from typing import Any, cast

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from services.simulator import __main__ as door
from services.simulator.fraud import Block, Frauds, Simulation
from services.simulator.live import Live
from streams.metrics import Metrics
from streams.usecases import FRAUD

SECONDS = 40


def payments(seed: int, rate: float = 2_000, frauds: Frauds | None = None) -> list[Block]:
    """Return the blocks of `SECONDS` seconds from time 0."""
    simulation = Simulation(seed, 1_000, 200, rate, frauds)
    return [simulation.block(1000 * second, 1000 * second + 1000) for second in range(SECONDS)]


def joined(blocks: list[Block], name: str) -> Any:
    """Return one column of all blocks."""
    return np.concatenate([getattr(block, name) for block in blocks])


def test_a_seed_gives_the_same_payments() -> None:
    """Two simulations of one seed are equal to the last cent; another seed is another run."""
    for name in ("times", "customers", "terminals", "amounts", "labels"):
        assert np.array_equal(joined(payments(5), name), joined(payments(5), name))
    assert not np.array_equal(joined(payments(5), "amounts")[:100], joined(payments(6), "amounts")[:100])


def test_payments_are_in_time_order_at_the_rate() -> None:
    """Times never fall, each block stays within its time, and the count is the rate times the time."""
    blocks = payments(1)
    times = joined(blocks, "times")
    assert np.all(np.diff(times) >= 0)
    assert all(block.times.min() >= 1000 * i and block.times.max() < 1000 * i + 1000 for i, block in enumerate(blocks))
    assert len(times) == pytest.approx(2_000 * SECONDS, rel=0.03)


def test_fraud_is_rare_but_there() -> None:
    """A few payments in a hundred are fraudulent, in the first seconds as in the last; amounts are above 0."""
    blocks = payments(1)
    assert 0.01 < joined(blocks, "labels").mean() < 0.06
    assert joined(blocks[:10], "labels").mean() > 0.005
    assert joined(blocks, "amounts").min() > 0


def test_every_kind_of_fraud_shows_where_it_should() -> None:
    """Outsized amounts tell themselves; a compromised terminal tells by its share of fraud; a stolen card is busy."""
    none = {"outsized": 0.0, "compromised": 0.0, "stolen": 0.0}
    assert joined(payments(2, frauds=Frauds(**none)), "labels").sum() == 0

    outsized = payments(2, frauds=Frauds(**(none | {"outsized": 0.01})))
    assert roc_auc_score(joined(outsized, "labels"), joined(outsized, "amounts")) > 0.8

    compromised = payments(2, frauds=Frauds(**(none | {"compromised": 0.02})))
    shares = np.bincount(joined(compromised, "terminals"), joined(compromised, "labels"), 200)
    assert np.count_nonzero(shares) <= 20

    stolen = payments(2, frauds=Frauds(**(none | {"stolen": 0.002})))
    per_customer = np.bincount(joined(stolen, "customers"), joined(stolen, "labels"), 1_000)
    assert per_customer.max() > 3 * np.median(np.bincount(joined(stolen, "customers")))


def test_a_drift_turns_the_pattern_round() -> None:
    """Up to the drift nothing differs; from then on fraud is as frequent, and of small amounts instead of large."""
    plain = joined(payments(2), "amounts")
    simulation = Simulation(2, 1_000, 200, 2_000, drift=1000 * SECONDS // 2)
    drifted = [simulation.block(1000 * second, 1000 * second + 1000) for second in range(SECONDS)]
    before, after = drifted[: SECONDS // 2], drifted[SECONDS // 2 :]
    amounts = joined(before, "amounts")
    assert np.array_equal(amounts, plain[: len(amounts)])
    assert roc_auc_score(joined(before, "labels"), amounts) > 0.6
    assert 0.01 < joined(after, "labels").mean() < 0.06
    assert roc_auc_score(joined(after[-5:], "labels"), joined(after[-5:], "amounts")) < 0.1


def test_generating_is_faster_than_any_broker() -> None:
    """A second of 200,000 payments takes well under a second to generate."""
    simulation = Simulation(1, 5_000, 1_000, 200_000)
    begin = time.process_time()
    made = len(simulation.block(0, 1000))
    assert made / (time.process_time() - begin) > 200_000


def test_live_sends_payments_at_their_time_and_labels_after_their_delay() -> None:
    """Each payment goes out keyed by its customer once its time has come, its label keyed by the event, late."""
    records: list[tuple[str, dict[str, Any], bytes, float]] = []

    class Notebook:
        def send(self, topic: str, value: bytes, key: bytes) -> None:
            records.append((topic, json.loads(value), key, time.time() * 1000))

        def flush(self) -> None:
            records.append(("flush", {}, b"", 0))

    simulation = Simulation(1, 50, 10, 200)
    live = Live(cast(Any, Notebook()), FRAUD.topics(2), simulation, 300, Metrics("test"), threading.Event())
    live.run(1)
    events = {value["event_id"]: (value, key, at) for topic, value, key, at in records if topic == "fraud.transactions"}
    labels = [(value, key, at) for topic, value, key, at in records if topic == "fraud.labels"]
    assert len(events) == live.sent_events > 100
    assert len(labels) == live.sent_labels > 50
    assert all(at >= value["event_time"] and key == value["customer_id"].encode() for value, key, at in events.values())
    for value, key, at in labels:
        assert value["label_time"] == events[value["event_id"]][0]["event_time"] + 300 <= at
        assert key == value["event_id"].encode()
    assert records[-1][0] == "flush"


@pytest.mark.parametrize("option", [["--rate", "0"], ["--rate", "nan"], ["--rate", "1", "--duration", "-1"]])
def test_a_wrong_option_is_named(capsys: Any, option: list[str]) -> None:
    """A wrong option ends with what it must be."""
    with pytest.raises(SystemExit) as error:
        door.main(["fraud", *option])
    assert error.value.code == 2
    assert "must be a number above 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--rate", "1e15"], "--rate: '1e15': must be 1000000 at most"),
        (["--rate", "1", "--customers", "99999999999"], "must be a whole number above 0, 1000000 at most"),
        (["--rate", "1", "--terminals", "1000001"], "must be a whole number above 0, 1000000 at most"),
        (["--rate", "1", "--seed", "²"], "must be a whole number above 0"),
    ],
)
def test_what_no_memory_holds_is_refused(capsys: Any, option: list[str], said: str) -> None:
    """Before anything is allocated."""
    with pytest.raises(SystemExit) as error:
        door.main(["fraud", *option])
    assert error.value.code == 2
    assert said in capsys.readouterr().err


def test_an_unreachable_kafka_is_named(capsys: Any, monkeypatch: Any) -> None:
    """Without Kafka there is one line with its address, and exit code 1."""
    monkeypatch.setenv("HEADRACE_KAFKA", "127.0.0.1:1")
    monkeypatch.setattr("streams.runtime.topics.REACH_MS", 300)
    assert door.main(["fraud", "--rate", "1"]) == 1
    assert capsys.readouterr().err.startswith("error: Kafka at 127.0.0.1:1 does not answer")


def test_frauds_only_says_nothing_of_the_rest() -> None:
    """With frauds only every fraud gets its label, and no other payment."""
    labels: list[dict[str, Any]] = []

    class Notebook:
        def send(self, topic: str, value: bytes, key: bytes) -> None:
            labels.extend([json.loads(value)] if topic == "fraud.labels" else [])

        def flush(self) -> None: ...

    simulation = Simulation(1, 50, 10, 1000, frauds=Frauds(outsized=0.2))
    live = Live(cast(Any, Notebook()), FRAUD.topics(2), simulation, 10, Metrics("test"), threading.Event(), True)
    live.run(0.5)
    assert 10 < len(labels) == live.sent_labels < live.sent_events / 2
    assert all(label["label"] == 1 for label in labels)
