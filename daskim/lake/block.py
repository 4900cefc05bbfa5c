"""A block of rows in standard form: the unit of work of the images stage."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from daskim.errors import SourceError
from daskim.lake.decode import convert, flat_rows
from daskim.lake.read import read_images
from daskim.lake.records import ImageSpec, Listing, Raw, Standard
from daskim.lake.stderr import quiet_native_stderr

__all__ = ["BLOCK_SCHEMA", "native_size", "standardise_block"]

# Decoding a tiny JPEG gives up the interpreter lock for about 8 microseconds, and taking it back from another
# thread costs more than that: two threads took 46 us an image together where one alone took 33. So runs of small
# images are decoded by one thread at a time; reading, and larger images, go on side by side.
_SMALL = threading.Lock()
_SMALL_BYTES = 8192
_SMALL_BATCH = 64

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
    rows: pa.Table, spec: ImageSpec, storage_options: Mapping[str, Any] | None = None
) -> tuple[np.ndarray, pa.Table]:
    """Read and standardise the images of `rows`. Safe to call from several threads.

    Parameters
    ----------
    rows : pyarrow.Table
        A slice of `Listing.table`, b rows.
    spec : ImageSpec
    storage_options : mapping, optional
        For fsspec.

    Returns
    -------
    pixels : numpy.ndarray of uint8, (b, h, w, c)
        Zeros where there is no image.
    table : pyarrow.Table
        b rows of `BLOCK_SCHEMA`, in the order of `rows`; ``bytes`` is what was read, or else what the listing
        knew.
    """
    pixels = np.zeros((rows.num_rows, *spec.shape), np.uint8)
    found: list[Standard] = []
    raws = read_images(rows, storage_options, max_bytes=spec.max_bytes)
    with quiet_native_stderr():
        for batch, small in _batches(raws):
            with _SMALL if small else contextlib.nullcontext():
                for raw in batch:
                    standard = convert(raw, spec)
                    if standard.pixels is not None:
                        pixels[len(found)] = standard.pixels
                    found.append(standard)
    return pixels, _table(rows, found, pixels, spec)


def _batches(raws: Iterator[Raw]) -> Iterator[tuple[list[Raw], bool]]:
    """Runs of small images, at most 64, flagged True, and larger ones one by one."""
    batch: list[Raw] = []
    for raw in raws:
        size = raw.nbytes if isinstance(raw, np.ndarray) else len(raw) if isinstance(raw, bytes) else 0
        if size > _SMALL_BYTES:
            if batch:
                yield batch, True
            yield [raw], False
            batch = []
            continue
        batch.append(raw)
        if len(batch) == _SMALL_BATCH:
            yield batch, True
            batch = []
    if batch:
        yield batch, True


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


def native_size(listing: Listing, storage_options: Mapping[str, Any] | None = None) -> tuple[int, int]:
    """(height, width) of the first image that can be read, orientation applied.

    Raises
    ------
    SourceError
        None can be read.
    """
    spec = ImageSpec(1, 1)
    table, seen = listing.table, dict[str, int]()
    with quiet_native_stderr():
        for start in range(0, table.num_rows, 16):
            for raw in read_images(table.slice(start, 16), storage_options, max_bytes=spec.max_bytes):
                standard = convert(raw, spec)
                if standard.pixels is not None:
                    return standard.height, standard.width
                seen[standard.status] = seen.get(standard.status, 0) + 1
    what = ", ".join(f"{count} {status}" for status, count in sorted(seen.items()))
    raise SourceError(f"none of the {table.num_rows} images can be read ({what})", "Name a size: images.size.")
