"""A block of rows in standard form: the unit of work of the images stage."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from daskim.errors import SourceError
from daskim.lake.decode import convert, flat_rows
from daskim.lake.guard import Job, Quarantined, each_image
from daskim.lake.records import ImageSpec, Listing, Standard

__all__ = ["BLOCK_SCHEMA", "native_size", "standardise_block"]

BLOCK_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("uri", pa.string()),
        ("label", pa.string()),
        ("split", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("bytes", pa.int64()),
        ("mtime", pa.float64()),
        ("file_digest", pa.binary()),
        ("digest", pa.binary()),
        ("full", pa.bool_()),
        ("status", pa.string()),
        ("reason", pa.string()),
    ]
)


def standardise_block(
    rows: pa.Table, spec: ImageSpec, storage_options: Mapping[str, Any] | None = None, *, alone: bool = False
) -> tuple[np.ndarray, pa.Table]:
    """Read and standardise the images of `rows`. Safe to call from several threads.

    Parameters
    ----------
    rows : pyarrow.Table
        A slice of `Listing.table`, b rows.
    spec : ImageSpec
    storage_options : mapping, optional
        For fsspec.
    alone : bool
        In child processes, since these rows have ended a process before; see `daskim.lake.guard`.

    Returns
    -------
    pixels : numpy.ndarray of uint8, (b, h, w, c)
        Zeros where there is no image.
    table : pyarrow.Table
        b rows of `BLOCK_SCHEMA`, in the order of `rows`; ``bytes`` is what was read, or else what the listing
        knew.
    """
    job = _job(spec)
    pixels = np.zeros((rows.num_rows, *spec.shape), np.uint8)
    found = []
    for index, result in enumerate(each_image(rows, job, storage_options, alone=alone)):
        standard = _lost(result) if isinstance(result, Quarantined) else result
        if standard.pixels is not None:
            pixels[index] = standard.pixels
        found.append(standard)
    return pixels, _table(rows, found, pixels, spec)


def _lost(what: Quarantined) -> Standard:
    return Standard(None, 0, 0, what.size, what.file_digest, b"", False, what.status, what.reason)


def _table(rows: pa.Table, found: list[Standard], pixels: np.ndarray, spec: ImageSpec) -> pa.Table:
    status = [standard.status for standard in found]
    reason = [standard.reason for standard in found]
    for index in np.flatnonzero(flat_rows(pixels, spec.flat_std)):
        if status[index] == "ok":
            status[index] = "flat"
            reason[index] = f"standard deviation below {spec.flat_std:g} grey levels"
    listed = rows.column("bytes").to_pylist()
    columns: dict[str, Any] = {
        "width": [standard.width for standard in found],
        "height": [standard.height for standard in found],
        "bytes": [standard.bytes or max(size, 0) for standard, size in zip(found, listed)],
        "file_digest": [standard.file_digest for standard in found],
        "digest": [standard.digest for standard in found],
        "full": [standard.full for standard in found],
        "status": status,
        "reason": reason,
    }
    return pa.table(
        [
            pa.array(columns[field.name], field.type) if field.name in columns else rows.column(field.name)
            for field in BLOCK_SCHEMA
        ],
        schema=BLOCK_SCHEMA,
    )


def native_size(
    listing: Listing, storage_options: Mapping[str, Any] | None = None, *, alone: bool = False
) -> tuple[int, int]:
    """(height, width) of the first image that can be read, orientation applied; `alone`: as of `standardise_block`.

    Raises
    ------
    SourceError
        None can be read.
    """
    job = _job(ImageSpec(1, 1))
    table, seen = listing.table, dict[str, int]()
    for start in range(0, table.num_rows, 16):
        for found in each_image(table.slice(start, 16), job, storage_options, alone=alone):
            if not isinstance(found, Quarantined) and found.pixels is not None:
                return found.height, found.width
            seen[found.status] = seen.get(found.status, 0) + 1
    what = ", ".join(f"{count} {status}" for status, count in sorted(seen.items()))
    raise SourceError(f"none of the {table.num_rows} images can be read ({what})", "Name a size: images.size.")


def _job(spec: ImageSpec) -> Job:
    return Job(partial(convert, spec=spec), spec.max_seconds, spec.max_bytes, spec.max_pixels)
