"""Dead letters: a record that cannot be processed keeps its bytes, key and headers and gains its reason."""

from dataclasses import dataclass

from schemas.codec import Poison
from streams.runtime.records import Header, Records

ERROR, MESSAGE, SOURCE, ATTEMPT = "headrace-error", "headrace-message", "headrace-source", "headrace-attempt"


@dataclass(frozen=True)
class DeadLetter:
    """What goes to the DLQ topic of the use case; `reason` is counted."""

    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
    reason: str


def dead_letter(records: Records, row: int, topic: str, partition: int, poison: Poison) -> DeadLetter:
    """Return record `row` of a batch as a dead letter, counting how often it has been tried."""
    headers = records.headers(row)
    attempt = 1 + max((_number(value) for name, value in headers if name == ATTEMPT), default=0)
    ours = {ERROR, MESSAGE, SOURCE, ATTEMPT}
    one = records.take(slice(row, row + 1))
    return DeadLetter(
        key=one.keys()[0],
        value=one.values()[0],
        headers=(
            *((name, value) for name, value in headers if name not in ours),
            (ERROR, poison.reason.encode()),
            (MESSAGE, str(poison)[:1000].encode()),
            (SOURCE, f"{topic}/{partition}/{records.offsets[row]}".encode()),
            (ATTEMPT, str(attempt).encode()),
        ),
        reason=poison.reason,
    )


def _number(value: bytes | None) -> int:
    """Return what an attempt header says; anyone may have written it, so what is no number is 0."""
    return int(value) if value and value.isdigit() and len(value) < 10 else 0
