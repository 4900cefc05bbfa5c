"""Numbers in place of digests, which are only ever asked whether they are equal.

A digest as a Python object takes some 60 bytes and is hashed anew at each question; for millions of images both count.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

__all__ = ["numbered"]


def numbered(table: pa.Table, *columns: str) -> pa.Table:
    """The table with equal numbers for equal values of some columns.

    Parameters
    ----------
    table : Table
    *columns : str
        Of any type that Arrow can hash. Values of one column are not compared with those of another.

    Returns
    -------
    Table
        In these columns int64, from 0 in the order in which values are first met; -1 for null.
    """
    for name in columns:
        table = table.set_column(table.column_names.index(name), name, pa.array(_numbers(table[name])))
    return table


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    whole = column.combine_chunks().dictionary_encode()
    if isinstance(whole, pa.ChunkedArray):  # above 2 GB; of many chunks it would take the square of the values
        parts = whole.unify_dictionaries().chunks
    else:
        parts = [whole]
    numbers = [part.indices.fill_null(-1).to_numpy(zero_copy_only=False) for part in parts]
    return np.concatenate([np.zeros(0, dtype=np.int64), *numbers], dtype=np.int64)
