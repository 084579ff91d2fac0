"""The progressive measures are scikit-learn's, over the newest scores only, and come back from their bytes."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, log_loss, precision_score, recall_score, roc_auc_score

from streams.models.evaluation import calibration_error
from streams.models.progressive import Progressive

# Few distinct scores, so that ties are common.
pairs = st.lists(
    st.tuples(st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1, width=32)), st.sampled_from([0, 1])),
    min_size=2,
    max_size=60,
).filter(lambda given_pairs: len({label for _, label in given_pairs}) == 2)

RECIPE = "logistic"


def said(window: int, *parts: list[tuple[float, int]]) -> Progressive:
    """One recipe's scores and the labels, in so many parts."""
    progressive = Progressive([RECIPE], window)
    for part in parts:
        scores, labels = (np.array(column) for column in zip(*part, strict=True))
        progressive.add(scores.reshape(-1, 1), labels.astype(np.int8))
    return progressive


@given(pairs=pairs)
def test_equals_scikit_learn(pairs: list[tuple[float, int]]) -> None:
    """AUC, average precision and log loss are the ones everybody else computes."""
    measures = said(60, pairs).measures(RECIPE)
    scores, labels = (np.array(column) for column in zip(*pairs, strict=True))
    assert measures["auc"] == pytest.approx(roc_auc_score(labels, scores))
    assert measures["average_precision"] == pytest.approx(average_precision_score(labels, scores))
    clipped = np.clip(scores, 1e-6, 1 - 1e-6)
    assert measures["log_loss"] == pytest.approx(log_loss(labels, clipped), rel=1e-4, abs=2e-6)
    assert measures["calibration_error"] == pytest.approx(calibration_error(scores, labels.astype(np.int8)))
    assert measures["labels"] == len(pairs)


@given(pairs, st.data())
def test_an_event_counts_for_as_many_as_it_stands_for(
    given_pairs: list[tuple[float, int]], data: st.DataObject
) -> None:
    """With weights the measures are scikit-learn's with weights: those of all events, though a sample was learnt."""
    scores, labels = (np.array(column) for column in zip(*given_pairs, strict=True))
    weights = np.array([data.draw(st.sampled_from([1.0, 2.0, 10.0])) for _ in given_pairs])
    progressive = Progressive([RECIPE], 60)
    progressive.add(scores.reshape(-1, 1), labels.astype(np.int8), weights)
    measures = progressive.measures(RECIPE)
    repeated = np.repeat(np.arange(len(scores)), weights.astype(int))
    assert measures == pytest.approx(
        said(2000, list(zip(scores[repeated].tolist(), labels[repeated].tolist(), strict=True))).measures(RECIPE)
        | {"labels": len(scores)}
    )
    assert measures["auc"] == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights))
    assert measures["average_precision"] == pytest.approx(
        average_precision_score(labels, scores, sample_weight=weights)
    )


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from([0, 1]), st.sampled_from([1.0, 2.0, 10.0])), min_size=1, max_size=30
    )
)
def test_alarms_are_judged_as_scikit_learn_does(events: list[tuple[bool, int, float]]) -> None:
    """Precision, recall and F1 of the alarms, each event for as many as it stands for, before and after a restart;
    where there is nothing to take a share of there is no number."""
    alarms, labels, weights = (np.array(column) for column in zip(*events, strict=True))
    progressive = Progressive(["other", RECIPE], 40)
    said = np.column_stack([np.full(len(events), np.nan), np.full(len(events), 0.3)])
    raised = np.column_stack([~alarms, alarms])
    progressive.add(said, labels.astype(np.int8), weights, alarms=raised)
    expected = {
        name: score(labels, alarms, sample_weight=weights)
        for name, score, some in (
            ("precision", precision_score, alarms),
            ("recall", recall_score, labels),
            ("f1", f1_score, alarms | (labels == 1)),
        )
        if some.any()
    }
    for one in (progressive, Progressive.from_bytes(progressive.to_bytes(), [RECIPE, "new"], 40)):
        measured = one.measures(RECIPE)
        assert {name: measured[name] for name in ("precision", "recall", "f1") if name in measured} == pytest.approx(
            expected
        )


WINDOW = 12
turns = st.lists(st.lists(st.tuples(st.integers(0, 7), st.booleans()), min_size=1, max_size=9), min_size=1, max_size=8)


@given(turns)
def test_the_last_word_on_an_event_takes_the_place_of_the_one_before(batches: list[list[tuple[int, bool]]]) -> None:
    """Each event's label turns round and round, in batches of any size: in the window each label stands once, the last
    one as it was said, and what it corrects is out; a twin that keeps a list says the same."""
    progressive = Progressive([RECIPE], WINDOW)
    held: dict[int, int] = {}
    twin: list[tuple[int, float, int]] = []
    for batch in batches:
        rows = []
        for event, first in batch:
            before = -1 if first or event not in held else held[event]
            label = 1 - before if before >= 0 else event % 2
            rows.append((event, label, before))
            for at in reversed(range(len(twin))):
                if before >= 0 and twin[at][0] == event and twin[at][2] == before:
                    twin[at] = (event, np.nan, before)
                    break
            twin.append((event, event / 8, label))
            held[event] = label
        events, labels, before_ = (np.array(column) for column in zip(*rows, strict=True))
        progressive.add(
            (events / 8).reshape(-1, 1), labels.astype(np.int8), None, events.astype(np.uint32) + 1,
            before_.astype(np.int8),
        )  # fmt: skip
    for one in (progressive, Progressive.from_bytes(progressive.to_bytes(), [RECIPE], WINDOW)):
        scores, labels, _ = one.newest(WINDOW)
        np.testing.assert_array_equal(scores[:, 0], [score for _, score, _ in twin[-WINDOW:]])
        assert labels.tolist() == [label for *_, label in twin[-WINDOW:]]
    assert progressive.measures(RECIPE)["labels"] == sum(not np.isnan(score) for _, score, _ in twin[-WINDOW:])


def test_a_late_positive_counts_once() -> None:
    """First assumed to be legitimate, then reported: one positive of three events."""
    progressive = Progressive([RECIPE], 8)
    said_first = np.array([[0.9], [0.2], [0.4]]), np.array([0, 0, 0], np.int8), np.array([10.0, 10.0, 10.0])
    progressive.add(*said_first, np.array([7, 8, 9], np.uint32), np.array([-1, -1, -1], np.int8))
    assert progressive.measures(RECIPE)["log_loss"] > 1.0
    progressive.add(
        np.array([[0.9]]), np.array([1], np.int8), np.array([1.0]), np.array([7], np.uint32), np.array([0], np.int8)
    )
    measures = progressive.measures(RECIPE)
    assert (measures["auc"], measures["average_precision"], measures["labels"]) == (1.0, 1.0, 3)


@given(st.lists(pairs, min_size=1, max_size=5), st.integers(1, 40))
def test_only_the_window_counts(parts: list[list[tuple[float, int]]], window: int) -> None:
    """However they came, the newest are held, in their order, and their bytes bring them back."""
    progressive = said(window, *parts)
    whole = [pair for part in parts for pair in part]
    for held in (progressive, Progressive.from_bytes(progressive.to_bytes(), [RECIPE], window)):
        scores, labels, _ = held.newest(window)
        assert list(zip(scores[:, 0].tolist(), labels.tolist(), strict=True)) == whole[-window:]
        assert held.newest(3)[0][:, 0].tolist() == [score for score, _ in whole[-min(3, window) :]]
        assert held.seen == len(whole)


def test_each_recipe_is_judged_by_what_it_scored() -> None:
    """What a challenger did not score does not count against it; a new recipe begins with nothing."""
    progressive = Progressive(["a", "b"], 8)
    progressive.add(np.array([[0.1, np.nan], [0.4, 0.9], [0.35, 0.2], [0.8, np.nan]]), np.array([0, 0, 1, 1], np.int8))
    assert progressive.measures("a")["auc"] == 0.75
    assert (progressive.measures("b")["auc"], progressive.measures("b")["labels"]) == (0.0, 2)
    resumed = Progressive.from_bytes(progressive.to_bytes(), ["c", "a"], 8)
    assert resumed.measures("a") == progressive.measures("a")
    assert resumed.measures("c") == {"labels": 0}


def test_nothing_to_say_is_not_said() -> None:
    """Without both classes there is no AUC, and without scores no loss."""
    progressive = Progressive([RECIPE])
    assert progressive.measures(RECIPE) == {"labels": 0}
    progressive.add(np.array([[0.2]]), np.array([0], np.int8))
    assert progressive.measures(RECIPE).keys() == {"log_loss", "calibration_error", "labels"}
    assert progressive.measures(RECIPE)["log_loss"] == pytest.approx(-np.log(0.8))


def test_three_recipes_fit_into_an_announcement() -> None:
    """What is kept of the window, with three recipes, is below 400 kB."""
    progressive = Progressive(["a", "b", "c"])
    rows = 20_000
    progressive.add(np.random.default_rng(1).random((rows, 3)), np.zeros(rows, np.int8))
    assert len(progressive.to_bytes()) < 400_000


@pytest.mark.parametrize("damaged", [b"", b"nonsense", said(8, [(0.5, 1)]).to_bytes()[:-1]])
def test_damaged_bytes_are_refused(damaged: bytes) -> None:
    """What is no window raises ValueError."""
    with pytest.raises(ValueError):  # noqa: PT011 - the messages are of three libraries
        Progressive.from_bytes(damaged, [RECIPE], 8)


def test_what_was_kept_before_there_were_weights_is_still_read() -> None:
    """Each label then counts once."""
    scores = np.array([[0.1], [0.4], [0.35], [0.8]], np.float32)
    before = msgspec.msgpack.encode(((RECIPE,), 4, scores.tobytes(), np.array([0, 0, 1, 1], np.int8).tobytes()))
    progressive = Progressive.from_bytes(before, [RECIPE], 8)
    assert progressive.measures(RECIPE)["auc"] == 0.75
    assert progressive.newest(8).weights.tolist() == [1.0] * 4
    assert "f1" not in progressive.measures(RECIPE)  # nor does anybody know what came of the scores
