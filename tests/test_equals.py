"""Equal numbers for equal values."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from daskim.equals import numbered

values = st.lists(st.lists(st.none() | st.binary(max_size=2), max_size=20), max_size=4)


@given(values)
def test_numbers_are_equal_where_values_are(parts: list[list[bytes | None]]) -> None:
    """In one column of several chunks, as a table of several parts has it; others stay."""
    flat = [value for part in parts for value in part]
    column = pa.chunked_array([pa.array(part, pa.binary()) for part in parts], pa.binary())
    table = numbered(pa.table({"row": range(len(flat)), "digest": column}), "digest")
    met: dict[bytes, int] = {}
    expected = [-1 if value is None else met.setdefault(value, len(met)) for value in flat]
    assert table["digest"].to_pylist() == expected
    assert table["digest"].type == pa.int64()
    assert table["row"].to_pylist() == list(range(len(flat)))
