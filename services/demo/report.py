"""What the demo prints: a line a second, and a summary at the end."""

from collections.abc import Mapping

from services.demo.watch import Reading, quantile


def line(now: Reading, before: Reading, elapsed: float, since: float) -> str:
    """Return the line of one moment: `elapsed` seconds into the run, `since` seconds after `before`."""
    rate = max(0, now.scored - before.scored) / since
    columns = (
        f"{elapsed:5.0f} s",
        f"{rate:7,.0f} events/s",
        f"event→score {_latency(now.since(before))}",
        f"lag {now.lag:,}",
        f"model {now.model_id}",
        f"{now.examples:,} examples",
        f"AUC {_auc(now)}",
    )
    return "  ".join(columns)


def summary(last: Reading, counts: Mapping[str, int], elapsed: float) -> str:
    """Return the end of the story; `counts` are the records of Kafka's topics: sent, scored, dead."""
    lost = max(0, counts["sent"] - counts["scored"] - counts["dead"])
    return "\n".join(
        (
            f"ran {elapsed:.1f} s",
            f"  events    {counts['sent']:,} sent, {counts['scored']:,} scored, {counts['dead']:,} in the DLQ, "
            f"{lost:,} lost",
            f"  latency   event→score {_latency(last.buckets)}",
            f"  learning  {last.examples:,} examples learnt, model {last.model_id}, progressive AUC {_auc(last)}",
        )
    )


def _latency(buckets: Mapping[float, float]) -> str:
    middle, tail = quantile(buckets, 0.5), quantile(buckets, 0.99)
    if middle is None or tail is None:
        return "p50    –  p99    –"
    return f"p50 {middle * 1000:5.1f} ms  p99 {tail * 1000:5.1f} ms"


def _auc(reading: Reading) -> str:
    return "–" if reading.auc is None else f"{reading.auc:.3f}"
