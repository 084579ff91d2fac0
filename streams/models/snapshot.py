"""Models as signed bytes: nothing is unpickled before the signature over all of its announcement is verified."""

import hashlib
import hmac
import pickle

import msgspec

from schemas.events import ModelAnnouncement
from streams.features.table import StateRefused
from streams.models.recipes import Model

SIGNATURE_BYTES = hashlib.sha256().digest_size


class SnapshotRefused(StateRefused):
    """A snapshot that must not be loaded; the message says which and why."""


class ForgedSnapshot(SnapshotRefused):
    """The signature does not fit: altered, or signed with another key."""


class ForeignSnapshot(SnapshotRefused):
    """A true snapshot of a model over another feature set."""


def seal(
    model: Model,
    *,
    model_id: str,
    recipe: str,
    feature_set: str,
    example_offsets: dict[int, int],
    examples_learnt: int,
    created_at: int,
    key: bytes,
    labels_seen: bytes = b"",
) -> ModelAnnouncement:
    """Return `model` as it is now, signed with `key` together with what is said of it; `created_at` in ms."""
    unsigned = ModelAnnouncement(
        model_id=model_id,
        recipe=recipe,
        feature_set=feature_set,
        example_offsets=example_offsets,
        examples_learnt=examples_learnt,
        created_at=created_at,
        snapshot=pickle.dumps(model, protocol=5),
        labels_seen=labels_seen,
    )
    return msgspec.structs.replace(unsigned, snapshot=_signature(unsigned, key) + unsigned.snapshot)


def unseal(announcement: ModelAnnouncement, key: bytes, feature_set: str) -> Model:
    """Return the model in `announcement`.

    Raises ForgedSnapshot or ForeignSnapshot, both SnapshotRefused, before unpickling anything, and
    SnapshotRefused where the libraries at hand cannot load it.
    """
    signature, pickled = announcement.snapshot[:SIGNATURE_BYTES], announcement.snapshot[SIGNATURE_BYTES:]
    unsigned = msgspec.structs.replace(announcement, snapshot=pickled)
    who = f"snapshot {announcement.model_id}"
    if not hmac.compare_digest(signature, _signature(unsigned, key)):
        raise ForgedSnapshot(f"{who}: its signature does not fit (altered, or signed with another key)")
    if announcement.feature_set != feature_set:
        raise ForeignSnapshot(f"{who}: made for feature set {announcement.feature_set}, not {feature_set}")
    try:
        model: Model = pickle.loads(pickled)  # noqa: S301 - only a holder of the key can have made it
    except Exception as error:  # whatever another version of River brings
        raise SnapshotRefused(f"{who}: cannot be loaded: {error}") from None
    return model


def _signature(unsigned: ModelAnnouncement, key: bytes) -> bytes:
    """Return the HMAC-SHA256 over every field, `snapshot` being the bare pickle."""
    fields = msgspec.structs.asdict(unsigned) | {"example_offsets": sorted(unsigned.example_offsets.items())}
    pickled: bytes = fields.pop("snapshot")
    if not unsigned.labels_seen:
        del fields["labels_seen"]  # as in announcements that were signed before the field was there
    header = msgspec.json.encode(fields, order="sorted")
    # The length keeps the border between header and pickle where it was.
    signed = len(header).to_bytes(8, "big") + header + pickled
    return hmac.digest(key, signed, "sha256")
