"""Which images there are: one row each, for ever."""

from __future__ import annotations

import hashlib
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from daskim.lake import Listing, native_size
from daskim.reading import listing_of
from daskim.settings import Settings
from daskim.stages import Context, Need, Size, Stage
from daskim.statuses import DELETED
from daskim.store import block_bounds, even_rows

__all__ = ["STAGE", "block_rows", "facts_of", "known_bytes", "splits_of", "standard_shape"]

# Coefficients of a block, bytes: large enough that a task is worth its overhead, small enough for any worker.
BLOCK_BYTES = 16_000_000
# Rows whose names are put into the digest together: a constant, as it tells which names were.
SLICE = 4096


def splits_of(table: pa.Table) -> dict[str, int]:
    """Images of each split; "" are those without."""
    counts = pc.value_counts(pc.fill_null(table["split"].combine_chunks(), "")).to_pylist()
    return {entry["values"]: entry["counts"] for entry in sorted(counts, key=lambda entry: entry["values"])}


def standard_shape(settings: Settings, listing: Listing, options: Any, *, alone: bool = False) -> tuple[int, int, int]:
    """(h, w, c) of the standard images; `native` is the size of the first readable image (`alone`: by a child)."""
    channels = 3 if settings.images.mode == "RGB" else 1
    if settings.images.size == "native":
        height, width = native_size(listing, options, alone=alone)
    else:
        height, width = (int(side) for side in settings.images.size.split("x"))
    return height, width, channels


def block_rows(settings: Settings, n: int, shape: tuple[int, int, int], *, grows: bool = False) -> int:
    """Images in a block: as set, else what fits in `BLOCK_BYTES`, with eight blocks at least. Workers do not matter.

    A run that is to grow has blocks as large as fit from the start: they stay what they are.
    """
    if settings.blocks.rows is not None:
        return settings.blocks.rows if grows else min(settings.blocks.rows, n)
    most = max(1, even_rows(BLOCK_BYTES // (2 * shape[0] * shape[1] * shape[2])))
    return most if grows else min(most, max(64, even_rows(-(-n // 8))), n)


def _run(context: Context) -> dict[str, Any]:
    context.engine.progress.begin("index", "listing", 1, 0)
    listing = listing_of(context.settings.source, context.source_options)
    note = ("state", "index", "begun")
    ended = context.run.exists(*note)  # an earlier process, at an image
    context.run.write(b"", *note)
    try:
        shape = standard_shape(context.settings, listing, context.source_options, alone=ended)
    finally:
        context.run.remove(*note)
    n = listing.table.num_rows
    rows = block_rows(context.settings, n, shape, grows=context.grows)
    table = listing.table.add_column(0, "row", pa.array(range(n), pa.int64()))
    for index, (lo, hi) in enumerate(block_bounds(n, rows)):
        context.run.write_part("index", f"{index:06d}", table.slice(lo, hi - lo))
    context.engine.progress.advance("index")
    return {
        "n": n,
        "height": shape[0],
        "width": shape[1],
        "channels": shape[2],
        "rows": rows,
        "ignored": listing.ignored,
        **facts_of(table),
    }


def facts_of(table: pa.Table) -> dict[str, Any]:
    """What a table `index` tells: known bytes, splits and number of the images, and a digest of ids, labels, splits."""
    digest = hashlib.blake2b(digest_size=16)
    for lo in range(0, table.num_rows, SLICE):
        part = table.slice(lo, SLICE)
        for name in ("id", "label", "split"):
            digest.update("\x00".join(str(value) for value in part[name].to_pylist()).encode("utf-8", "surrogatepass"))
    table = table.filter(pc.not_equal(table["status"], DELETED))
    return {
        "n_images": table.num_rows,
        "bytes": known_bytes(table),
        "content": digest.hexdigest(),
        "splits": splits_of(table),
    }


def known_bytes(table: pa.Table) -> int:
    """Sum of the sizes that the listing knows."""
    return int(pc.sum(pc.if_else(pc.greater(table["bytes"], 0), table["bytes"], 0)).as_py() or 0)


def _need(size: Size, settings: Settings, workers: int) -> Need:
    # measured: 350 to 490 bytes an image at paths of 40 to 70 letters, and 40 MB; a letter more adds at most 4 bytes
    return Need(blocks=1, read=0, write=200 * size.n, task=0, driver=800 * size.n + 64_000_000)


STAGE = Stage(
    name="index",
    version=2,
    reads=(),
    settings=("source", "images.size", "images.mode", "blocks.rows"),
    leaves=("tables/index", "frozen/index"),
    run=_run,
    need=_need,
)
