"""What travels on the public topics: one struct a message, JSON on the wire, event time in epoch ms UTC.

A new field has a default; no field ever changes its type. Unknown fields are ignored.
"""

from typing import Annotated, Literal

import msgspec

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Text = Annotated[str, msgspec.Meta(max_length=64)]
Millis = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Place = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
"""An offset, or a count of records."""
Partition = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Amount = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]


class Transaction(msgspec.Struct, frozen=True, gc=False):
    """A card payment at a terminal; `amount` in units of its currency, negative for a refund."""

    event_id: Id
    event_time: Millis
    customer_id: Id
    terminal_id: Id
    amount: Amount
    currency: Text | None = None
    merchant_category: Text | None = None
    country: Text | None = None
    device: Text | None = None
    channel: Text | None = None


class Label(msgspec.Struct, frozen=True, gc=False):
    """What an event turned out to be (1: fraud, click), and when that became known.

    `assumed`: nobody said so; the horizon of the use case passed without a label.
    """

    event_id: Id
    label_time: Millis
    label: Literal[0, 1]
    assumed: bool = False


class Reason(msgspec.Struct, frozen=True, gc=False):
    """A feature that moved a score, by how much (in log odds, against what is usual)."""

    feature: str
    effect: float


class Score(msgspec.Struct, frozen=True, gc=False):
    """An event as it was scored: the features as used, the model, the decision, and when.

    `entities` maps each entity to the event's key, `received_at` is when Kafka took the event in and
    `scored_at` when the score was made (epoch ms). One event id may be scored twice after a failure;
    the scores are then the same up to model and time of scoring.

    `score` is the champion's calibrated probability and `raw_score` what it was before calibration; `shadow` has the
    calibrated scores of the challengers by recipe. `decision` was made by the version `policy` of the decision
    policy, and by its rule `rule` where it was not made by the score. `reasons` are the features that moved the
    score most, the strongest first.
    """

    event_id: Id
    event_time: Millis
    entities: dict[str, str]
    features: dict[str, float]
    score: float
    decision: str
    model_id: str
    feature_set: str
    received_at: Millis
    scored_at: Millis
    raw_score: float | None = None
    shadow: dict[str, float] = {}
    policy: str = ""
    rule: str = ""
    reasons: list[Reason] = []


class Example(msgspec.Struct, frozen=True, gc=False):
    """A scored event with its label: what a learner learns from, and nothing is recomputed.

    `label_partition` and `label_offset` are the label's place in the label topic. An example may come twice after a
    failure, with the same place: whoever counts goes by that. None says that nobody can tell.

    `weight` makes up for negatives that were left out. `corrects` is the label that this event was learnt with
    before, None where it was not; `weight` is then what that was learnt with. `shadow` has what the challengers said
    of it, by recipe.
    """

    event_id: Id
    event_time: Millis
    label_time: Millis
    label: Literal[0, 1]
    features: dict[str, float]
    score: float
    model_id: str
    feature_set: str
    weight: float = 1.0
    label_partition: Annotated[int, msgspec.Meta(ge=0, le=2**15)] | None = None
    label_offset: Annotated[int, msgspec.Meta(ge=0, le=2**62)] | None = None
    corrects: Literal[0, 1] | None = None
    shadow: dict[str, float] = {}


class ModelSnapshot(msgspec.Struct, frozen=True):
    """One model as it was after the examples before `example_offsets`, signed by `signature` over all the rest.

    `model_id` is the recipe and the examples learnt; `parent` the snapshot of the recipe before it; `metrics` the
    progressive measures at that time; `state` the model's bytes (`streams.models.storage`).
    """

    model_id: Id
    recipe: Id
    feature_set: str
    example_offsets: dict[Partition, Place]
    examples_learnt: Place
    created_at: Millis
    parent: str | None
    metrics: dict[str, float]
    state: bytes
    signature: bytes = b""


class ModelAnnouncement(msgspec.Struct, frozen=True):
    """All models of a use case as they were after the examples before `example_offsets`, and what only their learner
    needs to go on from there (`course`: `streams.models.lessons`; empty in what is for scorers only), signed by
    `signature` over all the rest.

    `example_offsets` is the next offset to learn from in each partition of the example topic; `models` has one
    snapshot a recipe, each with a signature of its own: an older one where the newest is not fit to be used.
    """

    created_at: Millis
    feature_set: str
    example_offsets: dict[Partition, Place]
    models: list[ModelSnapshot]
    course: bytes
    signature: bytes = b""


class AliasChange(msgspec.Struct, frozen=True):
    """From now on `alias` is the newest snapshot of `recipe`, or `model` for good where one is pinned.

    There is one alias: every other recipe that is learnt is a challenger, and scores in the champion's shadow.
    `by` is "learner" or "operator". The newest record of an alias counts. `judged` is after how many labels the
    learner decided it.
    """

    alias: Literal["champion"]
    recipe: str
    by: Literal["learner", "operator"]
    reason: str
    created_at: Millis
    model: ModelSnapshot | None = None
    judged: int = 0


class Listing(msgspec.Struct, frozen=True):
    """An entity that is on a list: its events are declined or approved whatever their score.

    Its record's key is `entity:id`; the newest record of a key counts, and null ends it.
    """

    entity: Text
    id: Id
    list: Literal["block", "allow"]
    reason: str
    created_at: Millis


class Watermark(msgspec.Struct, frozen=True, gc=False):
    """A producer's promise that this partition will bring no event before `watermark` (epoch ms) any more.

    Travels beside events and labels, marked by the record header `WATERMARK_HEADER`. Once one is seen, stages
    that merge partitions wait for all of them and release in event-time order; `None` ends the promise.
    """

    watermark: Millis | None


WATERMARK_HEADER = "headrace-watermark"
