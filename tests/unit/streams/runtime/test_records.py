"""Records against aiokafka's own reader and writer of record batches."""

import gzip
import random

import numpy as np
import pytest
from aiokafka import codec
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from hypothesis import given
from hypothesis import strategies as st

from streams.runtime import recordbatch, records
from streams.runtime.compression import UNREAD_BATCH, CorruptRecordsError
from streams.runtime.records import Records, Spans

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
CODECS = [NONE, GZIP] + [c for c in (SNAPPY, LZ4, ZSTD) if codec.has_snappy()]

nullable = st.none() | st.binary(max_size=40) | st.integers(0, 3).map(lambda k: b"v" * 10**k * 7)
header = st.tuples(st.text(max_size=8), st.none() | st.binary(max_size=8))
times = st.integers(0, 2**41)
record = st.tuples(times, nullable, nullable, st.lists(header, max_size=3))


def batch_of(rows, base=0, compression=NONE):
    """The batch that a Kafka producer would write for rows of (timestamp, key, value, headers)."""
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, -1, 1 << 30)
    for i, (timestamp, key, value, headers) in enumerate(rows):
        builder.append(i, timestamp=timestamp, key=key, value=value, headers=headers)
    batch = bytearray(builder.build())
    batch[0:8] = base.to_bytes(8, "big")
    return bytes(batch)


def resealed(batch):
    """The batch with a checksum that fits what was changed in it."""
    crc = calc_crc32c(bytes(batch[recordbatch.ATTRIBUTES_AT :]))
    return bytes(batch[: recordbatch.CRC_AT]) + crc.to_bytes(4, "big") + bytes(batch[recordbatch.ATTRIBUTES_AT :])


def read_by_aiokafka(data):
    memory = MemoryRecords(bytes(data))
    rows = []
    while memory.has_next():
        batch = memory.next_batch()
        assert batch.validate_crc()
        rows += [(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in batch]
    return rows


def rows_of(parsed: Records):
    headers = [parsed.headers(i) for i in range(len(parsed))]
    columns = (parsed.offsets.tolist(), parsed.timestamps.tolist(), parsed.keys(), parsed.values(), headers)
    return list(zip(*columns, strict=True))


@given(st.lists(st.lists(record, min_size=1, max_size=6), max_size=4), st.sampled_from(CODECS))
def test_parse_reads_what_a_producer_wrote(batches, compression):
    """Whatever the keys, values, headers, times and codec, the records are those that aiokafka reads."""
    data, base = b"", 100
    for rows in batches:
        data += batch_of(rows, base, compression)
        base += len(rows)
    parsed, next_offset = records.parse(data, 100)
    assert rows_of(parsed) == read_by_aiokafka(data)
    assert next_offset == base
    assert parsed.has_headers.tolist() == [bool(h) for rows in batches for *_, h in rows]


@given(st.lists(st.tuples(times, nullable, nullable), min_size=1, max_size=12), st.integers(100, 3000))
def test_build_writes_what_a_consumer_reads(rows, max_bytes):
    """Batches that we write pass aiokafka's checksum and reader, in order, none larger than asked."""
    timestamps, keys, values = (list(column) for column in zip(*rows, strict=True))
    built = records.build(Spans.of(keys), Spans.of(values), np.array(timestamps, np.int64), max_bytes=max_bytes)
    read = [row for batch in built for row in read_by_aiokafka(batch)]
    assert [(t, k, v) for _, t, k, v, _ in read] == rows
    assert sum(map(records.batch_count, built)) == len(rows)
    for batch in built:
        assert len(batch) <= max_bytes or records.batch_count(batch) == 1


def test_build_equals_aiokafkas_bytes():
    """For the same records our batch is the very bytes that aiokafka's builder writes."""
    rows = [(1_700_000_000_000 + 7 * i, b"key%d" % i, b"x" * (i * 13 % 400), []) for i in range(300)]
    times, keys, values, _ = zip(*rows, strict=True)
    (ours,) = records.build(Spans.of(keys), Spans.of(values), np.array(times, np.int64))
    theirs = bytearray(batch_of(rows))
    assert bytes(ours) == resealed(theirs)


def test_build_takes_the_rows_asked_for():
    """Rows pick and order the records, and keys may lie in another buffer than the values."""
    keys, values = Spans.of([b"a", b"b", b"c"]), Spans.of([b"1", None, b"333"])
    (batch,) = records.build(keys, values, np.array([5, 6, 7]), rows=np.array([2, 1]))
    assert [row[1:4] for row in read_by_aiokafka(batch)] == [(7, b"c", b"333"), (6, b"b", None)]


@given(st.data())
def test_a_changed_byte_is_refused(data):
    """No flipped bit behind the checksum goes unnoticed."""
    batch = bytearray(batch_of([(1, b"k", b"value" * 9, [("h", b"v")])]))
    at = data.draw(st.integers(recordbatch.CRC_AT, len(batch) - 1))
    batch[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CorruptRecordsError, match="wrong checksum"):
        records.parse(bytes(batch), 0)


@given(st.data())
def test_nonsense_under_a_valid_checksum_is_refused_or_bounded(data):
    """Whatever stands in a batch, it is refused or every span is inside the buffer."""
    batch = bytearray(batch_of([(1, b"k", b"v" * 30, [("h", b"v")])] * 3))
    for _ in range(data.draw(st.integers(1, 4))):
        batch[data.draw(st.integers(recordbatch.ATTRIBUTES_AT, len(batch) - 1))] = data.draw(st.integers(0, 255))
    try:
        parsed, _ = records.parse(resealed(batch), 0)
        for i in range(len(parsed)):
            parsed.headers(i)
    except CorruptRecordsError:
        return
    for start, size in [(parsed.key_start, parsed.key_size), (parsed.value_start, parsed.value_size)]:
        assert ((start >= 0) & (start + size <= parsed.buffer.size)).all()


@pytest.mark.parametrize("cut", [1, 11, 30, 70])
def test_a_batch_cut_off_at_the_end_is_left_for_the_next_fetch(cut):
    """The broker may cut the last batch; the next offset is then its first."""
    whole = batch_of([(1, None, b"a", []), (2, None, b"b", [])], base=10)
    parsed, next_offset = records.parse(whole + batch_of([(3, None, b"c" * 99, [])], base=12)[:-cut], 10)
    assert (parsed.values(), next_offset) == ([b"a", b"b"], 12)


@pytest.mark.parametrize("compression", CODECS)
def test_records_below_the_first_offset_are_left_out(compression):
    """A fetch from the middle of a batch answers the whole batch; the part before is not delivered again."""
    data = batch_of([(i, b"k", b"%d" % i, []) for i in range(5)], base=10, compression=compression)
    parsed, next_offset = records.parse(data, 13)
    assert (parsed.offsets.tolist(), parsed.values(), next_offset) == ([13, 14], [b"3", b"4"], 15)


def test_control_batches_are_skipped_but_stepped_over():
    """A transaction's marker is no record, yet its offset is consumed."""
    control = bytearray(batch_of([(1, b"\0\0\0\1", b"marker", [])], base=7))
    control[recordbatch.ATTRIBUTES_AT + 1] |= recordbatch.CONTROL_BIT
    parsed, next_offset = records.parse(resealed(control), 7)
    assert (len(parsed), next_offset) == (0, 8)


def test_compaction_at_the_end_of_a_batch_does_not_stall():
    """The next offset comes from the batch's last offset, even when its last records are gone."""
    batch = bytearray(batch_of([(1, b"k", b"v", [])], base=7))
    batch[23:27] = (9).to_bytes(4, "big")
    parsed, next_offset = records.parse(resealed(batch), 7)
    assert (parsed.offsets.tolist(), next_offset) == ([7], 17)


def test_log_append_time_is_the_time_of_every_record():
    """On a topic with LogAppendTime the broker's time stands in the header and counts for all."""
    batch = bytearray(batch_of([(1, None, b"a", []), (2, None, b"b", [])]))
    batch[recordbatch.ATTRIBUTES_AT + 1] |= recordbatch.LOG_APPEND_BIT
    batch[35:43] = (777).to_bytes(8, "big")
    parsed, _ = records.parse(resealed(batch), 0)
    assert parsed.timestamps.tolist() == [777, 777]


def test_an_older_format_is_refused_by_name():
    """Format v1 is not parsed as if it were v2."""
    batch = bytearray(batch_of([(1, None, b"a", [])]))
    batch[recordbatch.MAGIC_AT] = 1
    with pytest.raises(CorruptRecordsError, match="format"):
        records.parse(bytes(batch), 0)


def test_a_missing_codec_is_named(monkeypatch):
    """Without cramjam an lz4 batch says what is missing."""
    batch = bytearray(batch_of([(1, None, gzip.compress(b"a"), [])]))
    batch[recordbatch.ATTRIBUTES_AT + 1] |= LZ4
    monkeypatch.setattr(codec, "cramjam", None)
    with pytest.raises(CorruptRecordsError, match=r"lz4.*cramjam"):
        records.parse(resealed(batch), 0)


@pytest.mark.parametrize("compression", CODECS[1:])
def test_a_batch_that_inflates_beyond_all_bounds_is_one_record(compression, monkeypatch):
    """It keeps its bytes and last offset, says why, and stops no record before or after it."""
    monkeypatch.setattr("streams.runtime.compression.MAX_INFLATED", 1 << 20)
    before = batch_of([(1, b"k", b"fine", [])], base=3, compression=compression)
    bomb = batch_of([(5, None, bytes(1 << 20), []), (6, None, b"too", [])], base=4, compression=compression)
    after = batch_of([(7, b"k", b"fine too", [])], base=6, compression=compression)
    parsed, next_offset = records.parse(before + bomb + after, 3)
    assert (parsed.values(), next_offset) == ([b"fine", bomb, b"fine too"], 7)
    assert (parsed.offsets.tolist(), parsed.timestamps.tolist()) == ([3, 5, 6], [1, 6, 7])
    ((name, reason),) = parsed.headers(1)
    assert name == UNREAD_BATCH
    assert b"above 1 MiB" in (reason or b"")


@pytest.mark.parametrize("number", [GZIP, 6])
def test_a_batch_that_cannot_be_inflated_is_one_record(number):
    """Neither nonsense nor an unknown codec ends the worker."""
    batch = bytearray(batch_of([(1, None, b"no gzip", [])], base=9))
    batch[recordbatch.ATTRIBUTES_AT + 1] |= number
    parsed, next_offset = records.parse(resealed(batch), 9)
    assert (parsed.values(), parsed.offsets.tolist(), next_offset) == ([resealed(batch)], [9], 10)


def test_a_fetch_inflates_only_so_far(monkeypatch):
    """What is beyond the bound together is left for the next fetch, none of it is lost or repeated."""
    monkeypatch.setattr("streams.runtime.compression.MAX_INFLATED", 1 << 20)
    batches = [batch_of([(i, None, bytes(400_000), [])], base=i, compression=GZIP) for i in range(5)]
    seen, at = [], 0
    while at < 5:
        parsed, at = records.parse(b"".join(batches[at:]), at)
        seen.append(parsed.offsets.tolist())
    assert seen == [[0, 1], [2, 3], [4]]


@given(st.lists(record, max_size=6))
def test_records_of_python_objects_read_back(rows):
    """Records made for a test answer what was put in, and `take` picks among them."""
    times, keys, values, headers = (list(c) for c in zip(*rows, strict=True)) if rows else ([], [], [], [])
    made = Records.of(keys, values, range(len(rows)), times, headers)
    expected = [(i, t, k, v, tuple(h)) for i, (t, k, v, h) in enumerate(rows)]
    assert rows_of(made) == expected
    some = np.array(random.Random(1).sample(range(len(rows)), len(rows) // 2), np.int64)
    assert rows_of(made.take(some)) == [expected[i] for i in some]


def test_crc32c_of_the_standard():
    """The check value of CRC-32C: 123456789 gives E3069283."""
    assert recordbatch.crc32c(np.frombuffer(b"123456789", np.uint8), 0, 9) == 0xE3069283
