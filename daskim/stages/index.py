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
from daskim.store import block_bounds

__all__ = ["STAGE", "block_rows", "splits_of", "standard_shape"]

# Coefficients of a block, bytes: large enough that a task is worth its overhead, small enough for any worker.
BLOCK_BYTES = 16_000_000


def splits_of(listing: Listing) -> dict[str, int]:
    """Images of each split; "" are those without."""
    counts = pc.value_counts(pc.fill_null(listing.table["split"].combine_chunks(), "")).to_pylist()
    return {entry["values"]: entry["counts"] for entry in sorted(counts, key=lambda entry: entry["values"])}


def standard_shape(settings: Settings, listing: Listing, options: Any) -> tuple[int, int, int]:
    """(h, w, c) of the standard images; `native` is the size of the first readable image."""
    channels = 3 if settings.images.mode == "RGB" else 1
    if settings.images.size == "native":
        height, width = native_size(listing, options)
    else:
        height, width = (int(side) for side in settings.images.size.split("x"))
    return height, width, channels


def block_rows(settings: Settings, n: int, shape: tuple[int, int, int]) -> int:
    """Images in a block: as set, else what fits in `BLOCK_BYTES`, with eight blocks at least. Workers do not matter."""
    if settings.blocks.rows is not None:
        return min(settings.blocks.rows, n)
    pixels = shape[0] * shape[1] * shape[2]
    return max(1, min(BLOCK_BYTES // (2 * pixels), max(64, -(-n // 8)), n))


def _run(context: Context) -> dict[str, Any]:
    context.engine.progress.begin("index", "listing", 1, 0)
    listing = listing_of(context.settings.source, context.source_options)
    shape = standard_shape(context.settings, listing, context.source_options)
    table = listing.table
    n = table.num_rows
    rows = block_rows(context.settings, n, shape)
    digest = hashlib.blake2b(digest_size=16)
    for index, (lo, hi) in enumerate(block_bounds(n, rows)):
        part = table.slice(lo, hi - lo)
        part = part.add_column(0, "row", pa.array(range(lo, hi), pa.int64()))
        context.run.write_part("index", f"{index:06d}", part)
        for name in ("id", "label", "split"):
            digest.update("\x00".join(str(value) for value in part[name].to_pylist()).encode("utf-8", "surrogatepass"))
    context.engine.progress.advance("index")
    known = pc.sum(pc.if_else(pc.greater(table["bytes"], 0), table["bytes"], 0)).as_py() or 0
    return {
        "n": n,
        "height": shape[0],
        "width": shape[1],
        "channels": shape[2],
        "rows": rows,
        "bytes": int(known),
        "ignored": listing.ignored,
        "content": digest.hexdigest(),
        "splits": splits_of(listing),
    }


def _need(size: Size, settings: Settings, workers: int) -> Need:
    return Need(blocks=1, read=0, write=200 * size.n, task=0, driver=2_000 * size.n)


STAGE = Stage(
    name="index",
    version=2,
    reads=(),
    settings=("source", "images.size", "images.mode", "blocks.rows"),
    leaves=("tables/index",),
    run=_run,
    need=_need,
)
