"""Rows of a listing from columns, with defaults for what a format does not know."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from daskim.lake.records import LISTING_SCHEMA

__all__ = ["broken_rows", "make_rows"]

_MANY = 1 << 14
_DEFAULTS: dict[str, Any] = {
    "label": None,
    "split": None,
    "source": 0,
    "item": 0,
    "member": None,
    "bytes": -1,
    "mtime": float("nan"),
    "etag": None,
    "status": "ok",
    "reason": "",
}


def make_rows(count: int, **columns: Any) -> pa.Table:
    """A table of `LISTING_SCHEMA`; a column given as one value holds for all rows.

    Parameters
    ----------
    count : int
        Number of rows.
    **columns
        Lists, numpy or Arrow arrays of length `count`, or single values. id, uri, format and container must be
        given.
    """
    arrays = []
    for name, kind in zip(LISTING_SCHEMA.names, LISTING_SCHEMA.types):
        value = columns[name] if name in columns else _DEFAULTS[name]
        if isinstance(value, pa.Array | pa.ChunkedArray):
            arrays.append(value if value.type == kind else value.cast(kind))
        elif isinstance(value, list | tuple | np.ndarray):
            arrays.append(pa.array(value, kind))
        else:
            arrays.append(_repeated(value, kind, count))
    return pa.table(arrays, schema=LISTING_SCHEMA)


def _repeated(value: Any, kind: pa.DataType, count: int) -> pa.Array:
    """One value `count` times; tables of ordinary length share its memory."""
    return _many(value, kind).slice(0, count) if count <= _MANY else pa.repeat(pa.scalar(value, kind), count)


@lru_cache(maxsize=64)
def _many(value: Any, kind: pa.DataType) -> pa.Array:
    return pa.repeat(pa.scalar(value, kind), _MANY)


def broken_rows(
    rel: str,
    url: str,
    kind: str,
    status: str,
    reason: str,
    mtime: float = float("nan"),
    etag: str | None = None,
) -> pa.Table:
    """One row for a file of many images that cannot be read, wholly or from some point on.

    Its id ends in "/", so that it cannot collide with an image's.
    """
    return make_rows(
        1, id=[rel + "/"], uri=url, format=kind, container=url, mtime=mtime, etag=etag, status=status, reason=reason
    )
