"""Models as signed bytes: nothing of a model is loaded before the signature over all that is said of it is verified."""

import hmac
from collections.abc import Mapping

import msgspec

from schemas.events import ModelAnnouncement, ModelSnapshot
from streams.features.table import StateRefused
from streams.models.calibration import Calibrator
from streams.models.packing import Packed, pack, unpack
from streams.models.recipes import Model


class SnapshotRefused(StateRefused):
    """A snapshot that must not be loaded; the message says which and why."""


class ForgedSnapshot(SnapshotRefused):
    """The signature does not fit: altered, or signed with another key."""


class ForeignSnapshot(SnapshotRefused):
    """A true snapshot of a model over another feature set, or by another recipe."""


def seal(
    model: Model,
    calibrator: Calibrator,
    *,
    model_id: str,
    recipe: str,
    feature_set: str,
    example_offsets: dict[int, int],
    examples_learnt: int,
    created_at: int,
    key: bytes,
    parent: str | None = None,
    metrics: Mapping[str, float] | None = None,
) -> ModelSnapshot:
    """Return `model` and `calibrator` as they are now, signed with `key` together with what is said of them.

    `created_at` is in ms.
    """
    unsigned = ModelSnapshot(
        model_id=model_id,
        recipe=recipe,
        feature_set=feature_set,
        example_offsets=example_offsets,
        examples_learnt=examples_learnt,
        created_at=created_at,
        parent=parent,
        metrics=dict(metrics or {}),
        state=pack(model, calibrator),
    )
    return msgspec.structs.replace(unsigned, signature=_snapshot_signature(unsigned, key))


def verify(snapshot: ModelSnapshot, key: bytes, feature_set: str) -> None:
    """Raise ForgedSnapshot or ForeignSnapshot, both SnapshotRefused, unless `snapshot` is ours and of `feature_set`."""
    who = f"snapshot {snapshot.model_id}"
    if not hmac.compare_digest(snapshot.signature, _snapshot_signature(snapshot, key)):
        raise ForgedSnapshot(f"{who}: its signature does not fit (altered, or signed with another key)")
    _ours(who, snapshot.feature_set, feature_set)


def unseal(snapshot: ModelSnapshot, key: bytes, feature_set: str, names: tuple[str, ...]) -> Packed:
    """Return what is in `snapshot`, whose model is over the features `names`.

    Raises as `verify` does, before loading anything, and SnapshotRefused where the libraries at hand cannot load it.
    """
    verify(snapshot, key, feature_set)
    try:
        return unpack(snapshot.recipe, names, snapshot.state)
    except Exception as error:  # whatever another version of River brings
        raise SnapshotRefused(f"snapshot {snapshot.model_id}: cannot be loaded: {error}") from None


def sign(announcement: ModelAnnouncement, key: bytes) -> ModelAnnouncement:
    """Return `announcement` signed with `key`."""
    return msgspec.structs.replace(announcement, signature=_announcement_signature(announcement, key))


def verify_announcement(announcement: ModelAnnouncement, key: bytes, feature_set: str) -> None:
    """Raise as `verify` does unless `announcement` and every model in it are ours and of `feature_set`."""
    if not hmac.compare_digest(announcement.signature, _announcement_signature(announcement, key)):
        raise ForgedSnapshot("announcement: its signature does not fit (altered, or signed with another key)")
    for snapshot in announcement.models:
        verify(snapshot, key, feature_set)
    _ours("announcement", announcement.feature_set, feature_set)


def snapshot_of(announcement: ModelAnnouncement, recipe: str) -> ModelSnapshot:
    """Return the announced snapshot of `recipe`; raise ForeignSnapshot where there is none."""
    for snapshot in announcement.models:
        if snapshot.recipe == recipe:
            return snapshot
    made = ", ".join(snapshot.recipe for snapshot in announcement.models) or "nothing"
    raise ForeignSnapshot(f"announcement: made by recipe {made}, not {recipe}")


def _ours(who: str, theirs: str, ours: str) -> None:
    if theirs != ours:
        raise ForeignSnapshot(f"{who}: made for feature set {theirs}, not {ours}")


def _snapshot_signature(snapshot: ModelSnapshot, key: bytes) -> bytes:
    said = _said(snapshot) | {"state": None}
    return _signature(b"model", said, snapshot.state, key)


def _announcement_signature(announcement: ModelAnnouncement, key: bytes) -> bytes:
    # A snapshot's signature stands for all of it.
    said = _said(announcement) | {"course": None, "models": [model.signature.hex() for model in announcement.models]}
    return _signature(b"announcement", said, announcement.course, key)


def _said(message: ModelSnapshot | ModelAnnouncement) -> dict[str, object]:
    fields = msgspec.structs.asdict(message) | {"example_offsets": sorted(message.example_offsets.items())}
    del fields["signature"]
    return fields


def _signature(kind: bytes, said: dict[str, object], content: bytes, key: bytes) -> bytes:
    """Return the HMAC-SHA256 over everything; `kind` keeps one message's signature from being another's."""
    header = msgspec.json.encode(said, order="sorted")
    # The length keeps the border between header and content where it was.
    return hmac.digest(key, kind + len(header).to_bytes(8, "big") + header + content, "sha256")
