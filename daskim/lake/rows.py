"""Rows of a listing from columns, with defaults for what a format does not know."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from daskim.lake.records import LISTING_SCHEMA

__all__ = ["broken_rows", "make_rows"]

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
            arrays.append(pa.repeat(pa.scalar(value, kind), count))
    return pa.table(arrays, schema=LISTING_SCHEMA)


def broken_rows(rel: str, url: str, kind: str, status: str, reason: str, mtime: float = float("nan")) -> pa.Table:
    """One row for a file of many images that cannot be read, wholly or from some point on.

    Its id ends in "/", so that it cannot collide with an image's.
    """
    return make_rows(1, id=[rel + "/"], uri=url, format=kind, container=url, mtime=mtime, status=status, reason=reason)
