"""Card transactions that look like a payment network's: seeded, in time order, as the JSON of a producer.

2 transactions a customer and day fill a 30-day window with some 60, as in the data of the *Fraud Detection
Handbook*; every customer keeps to a few terminals, and some of those are compromised for a while.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from aiokafka.partitioner import murmur2
from numpy.typing import NDArray

CUSTOMERS, TERMINALS = 5_000, 10_000
DAILY = 2.0  # transactions a customer
USUAL_TERMINALS = 20
COMPROMISED_SHARE, FRAUD_FACTOR = 0.005, 4.0
DAY_MS = 86_400_000
START_MS = 1_735_689_600_000  # 2025-01-01 UTC

CATEGORIES = ("grocery", "fuel", "restaurant", "electronics", "travel", "clothing")
CHANNELS = ("chip", "contactless", "online")


class Payment(msgspec.Struct):
    """A `Transaction` with what came of it: the plain agent learns on the spot, the pipeline ignores `label`."""

    event_id: str
    event_time: int
    customer_id: str
    terminal_id: str
    amount: float
    currency: str
    merchant_category: str
    country: str
    device: str
    channel: str
    label: int


class _Id(msgspec.Struct):
    event_id: str


@dataclass(frozen=True)
class Workload:
    """n events in time order: their customers' keys, their JSON, and the customer's number (int64[n])."""

    keys: list[bytes]
    values: list[bytes]
    customer: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.keys)

    def part(self, start: int, stop: int) -> "Workload":
        """Return the events from `start` up to `stop`."""
        return Workload(self.keys[start:stop], self.values[start:stop], self.customer[start:stop])

    def partition(self, partitions: int) -> list[int]:
        """Return every event's partition, as any Kafka producer would choose it."""
        of_customer = [(murmur2(customer_key(number)) & 0x7FFFFFFF) % partitions for number in range(CUSTOMERS)]
        partition: list[int] = np.asarray(of_customer)[self.customer].tolist()
        return partition


def customer_key(number: int) -> bytes:
    """Return the key of a customer's events."""
    return b"customer-%05d" % number


def id_of(value: bytes | None) -> bytes:
    """Return the id of the event that is written so."""
    return msgspec.json.decode(value or b"", type=_Id).event_id.encode()


def index_of(event_id: bytes | None) -> int:
    """Return the position in the workload of the event with this id.

    >>> index_of(b"000000ff-8000-4000-8000-0123456789ab")
    255
    """
    return int((event_id or b"")[:8], 16)


def transactions(count: int, seed: int = 1, start_ms: int = START_MS) -> Workload:
    """Return `count` events from `start_ms` on (epoch ms); the same arguments give the same bytes."""
    rng = np.random.default_rng(seed)
    time = _times(count, start_ms, rng)
    activity = rng.gamma(4.0, 1.0, CUSTOMERS)
    customer = rng.choice(CUSTOMERS, count, p=activity / activity.sum())
    usual = rng.integers(0, TERMINALS, (CUSTOMERS, USUAL_TERMINALS))
    terminal = usual[customer, rng.integers(0, USUAL_TERMINALS, count)]
    label = (terminal < TERMINALS * COMPROMISED_SHARE) & (rng.random(count) < 0.5)
    typical = rng.lognormal(3.5, 0.7, CUSTOMERS)[customer]
    amount = np.round(typical * rng.lognormal(0.0, 0.4, count) * np.where(label, FRAUD_FACTOR, 1.0), 2)
    nonce = rng.integers(0, 1 << 48, count)
    category = rng.integers(0, len(CATEGORIES), count)
    channel = rng.integers(0, len(CHANNELS), count)
    columns: Sequence[NDArray[np.generic]] = (time, customer, terminal, amount, label, nonce, category, channel)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    encode = msgspec.json.Encoder().encode
    values = [encode(_payment(index, *row)) for index, row in enumerate(rows)]
    keys = [customer_key(number) for number in range(CUSTOMERS)]
    return Workload([keys[number] for number in customer.tolist()], values, customer)


def _times(count: int, start_ms: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Event times (ms), ascending: the same number every day, most of them around noon."""
    days = np.floor(np.arange(count) / (CUSTOMERS * DAILY))
    hours = np.clip(rng.normal(12.0, 5.0, count), 0.0, 23.999)
    return np.sort(start_ms + (days * DAY_MS + hours * 3_600_000).astype(np.int64))


def _payment(
    index: int,
    time: int,
    customer: int,
    terminal: int,
    amount: float,
    label: bool,
    nonce: int,
    category: int,
    channel: int,
) -> Payment:
    return Payment(
        event_id=f"{index:08x}-8000-4000-8000-{nonce:012x}",
        event_time=time,
        customer_id=customer_key(customer).decode(),
        terminal_id=f"terminal-{terminal:05d}",
        amount=amount,
        currency="EUR",
        merchant_category=CATEGORIES[category],
        country="BE",
        device=f"pos-{terminal:05d}",
        channel=CHANNELS[channel],
        label=int(label),
    )
