"""A snapshot is what its key's holder said it is, or it is refused before a byte of it is unpickled."""

import pickle
from pathlib import Path

import msgspec
import pytest

from schemas.events import ModelSnapshot
from streams.models.calibration import Calibrator
from streams.models.recipes import RECIPES, Model
from streams.models.snapshot import ForeignSnapshot, ForgedSnapshot, SnapshotRefused, seal, unseal

KEY, FEATURES = b"k" * 32, "0123456789abcdef"
X = {"amount": 3.0, "count": 2.0}
NAMES = tuple(X)


def taught() -> Model:
    model = RECIPES["logistic"].make(NAMES)
    for amount in range(9):
        model.learn_one({"amount": amount, "count": amount % 2}, amount > 4)
    return model


def sealed(model: Model | None = None, key: bytes = KEY) -> ModelSnapshot:
    return seal(
        model or taught(),
        Calibrator(),
        model_id="logistic@9",
        recipe="logistic",
        feature_set=FEATURES,
        example_offsets={0: 9, 10: 2},
        examples_learnt=9,
        created_at=1_700_000_000_000,
        key=key,
        parent="logistic@5",
        metrics={"auc": 0.75},
    )


def opened(snapshot: ModelSnapshot) -> Model:
    return unseal(snapshot, KEY, FEATURES, NAMES).model


def test_the_model_comes_back_as_it_was() -> None:
    """Over the wire and back: the same scores, and the same scores after learning on."""
    snapshot = msgspec.json.decode(msgspec.json.encode(sealed()), type=ModelSnapshot)
    model, twin = opened(snapshot), taught()
    assert model.predict_proba_one(X) == twin.predict_proba_one(X)
    for each in (model, twin):
        each.learn_one(X, True)
    assert model.predict_proba_one(X) == twin.predict_proba_one(X)


def test_a_snapshot_is_independent_of_further_learning() -> None:
    """What is sealed stays as it was when sealed."""
    model = taught()
    snapshot = sealed(model)
    model.learn_one(X, True)
    assert opened(snapshot).predict_proba_one(X) == taught().predict_proba_one(X)


def test_any_flipped_byte_is_refused() -> None:
    """One bit changed anywhere, signature or pickle: refused, by the model's id."""
    snapshot = sealed()
    for at in range(len(snapshot.state)):
        damaged = bytearray(snapshot.state)
        damaged[at] ^= 1
        with pytest.raises(ForgedSnapshot, match="logistic@9"):
            unseal(msgspec.structs.replace(snapshot, state=bytes(damaged)), KEY, FEATURES, NAMES)


@pytest.mark.parametrize(
    "lie",
    [
        {"model_id": "logistic@8"},
        {"recipe": "forest"},
        {"feature_set": "f" * 16},
        {"example_offsets": {0: 8, 10: 2}},
        {"example_offsets": {0: 9}},
        {"examples_learnt": 8},
        {"created_at": 0},
        {"parent": None},
        {"metrics": {"auc": 0.76}},
        {"state": b""},
        {"signature": b""},
    ],
    ids=lambda lie: next(iter(lie)),
)
def test_any_changed_field_is_refused(lie: dict) -> None:
    """The signature covers everything that is said of the model, not the model alone."""
    forged = msgspec.structs.replace(sealed(), **lie)
    with pytest.raises(ForgedSnapshot):
        unseal(forged, KEY, forged.feature_set, NAMES)


def test_another_key_is_refused() -> None:
    """Who has not the key cannot make a snapshot."""
    with pytest.raises(ForgedSnapshot):
        unseal(sealed(key=b"x" * 32), KEY, FEATURES, NAMES)


def test_another_feature_set_is_refused() -> None:
    """A true model of other features is not loaded, and the reason says whose it is."""
    with pytest.raises(ForeignSnapshot, match=f"{FEATURES}, not ffff"):
        unseal(sealed(), KEY, "ffff", NAMES)


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return Path.touch, (self.target,)


@pytest.mark.parametrize(("key", "feature_set"), [(b"x" * 32, FEATURES), (KEY, "ffff")])
def test_nothing_refused_is_unpickled(tmp_path: Path, key: bytes, feature_set: str) -> None:
    """A refused snapshot has run no code."""
    target = tmp_path / "ran"
    with pytest.raises(SnapshotRefused):
        unseal(sealed(Bomb(target), key=key), KEY, feature_set, NAMES)
    assert not target.exists()
    unseal(sealed(Bomb(target)), KEY, FEATURES, NAMES)  # the bomb is real
    assert target.exists()


def test_a_pickle_of_other_libraries_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A true snapshot that cannot be loaded here is refused with the cause."""
    snapshot = sealed()

    def loads(pickled: bytes) -> Model:
        raise ImportError("no module named river.elsewhere")

    monkeypatch.setattr(pickle, "loads", loads)
    with pytest.raises(SnapshotRefused, match="elsewhere"):
        unseal(snapshot, KEY, FEATURES, NAMES)
