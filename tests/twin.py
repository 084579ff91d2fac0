"""The slow, obvious twin of the feature kernel: keep every record, and recompute each feature from the list."""

from dataclasses import dataclass
from math import fsum, isclose
from statistics import pstdev

from streams.features.spec import Aggregate, FeatureSet, Over, Stage, View, Windowed


@dataclass(frozen=True)
class Record:
    """An event or a label of one entity; `values` are the event's, then the label."""

    key: bytes
    kind: Over
    time: int
    values: tuple[float, ...]


class Twin:
    """One stage, recomputed from all records seen so far."""

    def __init__(self, stage: Stage, features: FeatureSet) -> None:
        self.stage, self.features = stage, features
        self.seen: list[Record] = []

    def fold(self, record: Record) -> dict[str, float]:
        """Remember the record and return the features as of its time, if it is an event."""
        self.seen.append(record)
        if record.kind is not Over.EVENTS:
            return {}
        return {
            feature.name: self._value(view, feature, record) for view in self.stage.views for feature in view.features
        }

    def _value(self, view: View, feature: Windowed, event: Record) -> float:
        t, window = event.time, feature.window.length
        column = -1 if view.over is Over.LABELS else self.features.values.index(view.value)
        seen = [(r.time, r.values[column]) for r in self.seen if r.key == event.key and r.kind is view.over]
        # What is older than the longest window and the lateness, counted from the newest record, is forgotten.
        keep = max(feature.window.length for feature in view.features) + self.features.lateness
        newest = max((time for time, _ in seen), default=0)
        kept = [(time, value) for time, value in seen if time > newest - keep]
        inside = [value for time, value in kept if t - window < time <= t]
        match feature.aggregate:
            case Aggregate.COUNT:
                return float(len(inside))
            case Aggregate.SUM:
                return fsum(inside)
            case Aggregate.MEAN:
                return fsum(inside) / len(inside) if inside else 0.0
            case Aggregate.STD:
                return pstdev(inside) if inside else 0.0
            case Aggregate.MAX:
                return max(inside, default=0.0)
            case since:
                wanted = {Aggregate.SINCE_POSITIVE: [True], Aggregate.SINCE_NEGATIVE: [False]}.get(since, [True, False])
                earlier = [time for time, value in kept if time <= t and (value > 0) in wanted]
                if view.over is Over.EVENTS and t in earlier:
                    earlier.remove(t)  # the event itself
                return min([window, *(t - time for time in earlier)]) / 1000


def agree(stage: Stage, fast: dict[str, float], slow: dict[str, float]) -> bool:
    """Return whether both say the same: what is counted or picked exactly, what is computed to 1e-9."""
    aggregates = {feature.name: feature.aggregate for view in stage.views for feature in view.features}
    computed = (Aggregate.SUM, Aggregate.MEAN, Aggregate.STD)
    return fast.keys() == slow.keys() and all(
        isclose(fast[name], value, rel_tol=1e-9) if aggregates[name] in computed else fast[name] == value
        for name, value in slow.items()
    )
