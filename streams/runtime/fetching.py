"""aiokafka's fetcher made to hand over the bytes of a fetch response instead of a Python object per record.

The only thing changed inside aiokafka: `Fetcher._proc_fetch_request` runs with two other classes under the
names `MemoryRecords` and `PartitionRecords`, for our consumers alone. That holds for the version below; with
any other, importing this module fails.
"""

import asyncio
import types
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import aiokafka
from aiokafka.consumer import fetcher as aiokafka_fetcher
from aiokafka.consumer.fetcher import Fetcher, FetchError
from aiokafka.structs import TopicPartition

from streams.runtime.compression import CorruptRecordsError
from streams.runtime.recordbatch import OVERHEAD
from streams.runtime.records import Records, parse

AIOKAFKA = "0.14.0"
if aiokafka.__version__ != AIOKAFKA:
    raise ImportError(
        f"streams.runtime replaces parts of aiokafka {AIOKAFKA}, but {aiokafka.__version__} is installed; "
        "check streams/runtime/fetching.py against it before changing the pin"
    )

THIN_BYTES = 64 * 1024  # a response smaller than this lets the next request wait for `linger` seconds


class Fetched(NamedTuple):
    """What one fetch brought of one partition."""

    records: Records
    next_offset: int


class _RawRecords:
    """Stands in for MemoryRecords: the bytes, and whether they hold a whole batch."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def has_next(self) -> bool:
        length = int.from_bytes(self.data[8:OVERHEAD], "big")
        return len(self.data) >= OVERHEAD and len(self.data) >= OVERHEAD + length

    def size_in_bytes(self) -> int:
        return len(self.data)


class _RawPartitionRecords:
    """Stands in for PartitionRecords: yields one `Fetched` for the whole response, or nothing if it holds
    control batches only."""

    def __init__(self, tp: TopicPartition, records: _RawRecords, _aborted: Any, offset: int, *_: Any) -> None:
        self._tp = tp
        self._data = records.data
        self.next_fetch_offset = offset

    def __iter__(self) -> Iterator[Fetched]:
        try:
            records, next_offset = parse(self._data, self.next_fetch_offset)
        except CorruptRecordsError as error:
            raise CorruptRecordsError(f"{self._tp.topic}[{self._tp.partition}]: {error}") from None
        self.next_fetch_offset = next_offset
        if len(records):
            yield Fetched(records, next_offset)


_proc_raw_fetch_request = types.FunctionType(
    Fetcher._proc_fetch_request.__code__,
    {**vars(aiokafka_fetcher), "MemoryRecords": _RawRecords, "PartitionRecords": _RawPartitionRecords},
)


class RawFetcher(Fetcher):
    """A Fetcher whose results are `Fetched`, taken by `take`."""

    linger: float
    _bytes_taken: int

    @classmethod
    def adopt(cls, fetcher: Fetcher, linger: float) -> "RawFetcher":
        """Turn a fetcher that has not fetched yet into one of this class."""
        fetcher.__class__ = cls
        fetcher.linger = linger
        fetcher._bytes_taken = THIN_BYTES
        adopted: RawFetcher = fetcher
        return adopted

    async def _proc_fetch_request(self, assignment: Any, node_id: int, request: Any) -> bool:
        try:
            # When traffic is thin, a little patience makes one batch out of several and saves their overhead.
            if self._bytes_taken < THIN_BYTES:
                await asyncio.sleep(self.linger)
            self._bytes_taken = 0
            woke: bool = await _proc_raw_fetch_request(self, assignment, node_id, request)
        except asyncio.CancelledError:  # `close` and a rebalance await the request after cancelling it
            return False
        return woke

    async def wait(self, partitions: Collection[TopicPartition], timeout: float) -> None:
        """Wait until something has been fetched of one of the partitions."""
        if any(tp in partitions for tp in self._records):
            return
        arrival = self._create_fetch_waiter()
        await asyncio.wait([arrival], timeout=timeout)
        if arrival.done():
            arrival.result()  # raises what the group's coordination could not recover from
        else:
            arrival.cancel()

    def take(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, Fetched]:
        """Take what has been fetched of the partitions and move their positions past it, at once."""
        taken = {}
        for tp in [tp for tp in self._records if tp in partitions]:
            result = self._records.pop(tp)
            self._notify(self._wait_consume_future)
            if isinstance(result, FetchError):
                result.check_raise()
            for fetched in result.getall():
                taken[tp] = fetched
                self._bytes_taken += fetched.records.buffer.size
        return taken
