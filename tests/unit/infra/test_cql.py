import struct

from infra.local.cql import last_value


def rows(column_count: int, values: list[bytes]) -> bytes:
    """A ROWS result of text columns as the protocol's section 4.2.5.2 lays it out."""

    def string(text: bytes) -> bytes:
        return struct.pack(">H", len(text)) + text

    columns = b"".join(string(b"cluster_name") + struct.pack(">H", 0x0D) for _ in range(column_count))
    cells = b"".join(struct.pack(">I", len(value)) + value for value in values)
    head = struct.pack(">III", 2, 1, column_count) + string(b"system") + string(b"local") + columns
    return head + struct.pack(">I", len(values) // column_count) + cells


def test_the_value_of_a_one_row_result_is_read() -> None:
    """The cluster's name comes out as it went in."""
    assert last_value(rows(1, [b"ours"])) == "ours"


def test_any_other_result_is_nobody() -> None:
    """No row, several rows, several columns or a result without rows name nobody."""
    assert last_value(rows(1, [])) is None
    assert last_value(rows(1, [b"a", b"b"])) is None
    assert last_value(rows(2, [b"a", b"b"])) is None
    assert last_value(struct.pack(">III", 1, 0, 0)) is None
