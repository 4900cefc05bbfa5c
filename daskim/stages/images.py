"""Every image as one standard array, with its digests and its status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from daskim.errors import BadInputs
from daskim.lake import FILE_DIGEST, ImageSpec, decoder_versions, standardise_block
from daskim.reading import standard_spec
from daskim.renewal import by_block
from daskim.settings import Settings
from daskim.stages import Change, Context, Need, Size, Stage
from daskim.statuses import DELETED, READABLE
from daskim.store import Run, block_bounds

__all__ = ["STAGE", "refuse_bad"]

# Bytes of files that are read ahead by one task, and what the lake keeps unpacked in a process at most.
READ_BYTES = 64_000_000
LAKE_CACHE_BYTES = 256_000_000


def _run(context: Context) -> dict[str, Any]:
    size = context.known
    shape = (size.n, size.height, size.width, size.channels)
    if not context.engine.run.marked("images"):
        context.run.create_array("images", shape, "u1", size.rows)
    bounds = block_bounds(size.n, size.rows)
    keys = [f"{index:06d}" for index in range(len(bounds))]
    spec = standard_spec(context.settings.images, size.height, size.width)
    calls = [(lo, hi, spec, context.source_options) for lo, hi in bounds]
    alone = partial(standard_block, alone=True)
    infos = context.engine.each("images", "block", keys, calls, standard_block, alone=alone)
    status: Counter[str] = Counter()
    for info in infos:
        status.update(info["status"])
    status.pop(DELETED, None)
    return {"status": dict(sorted(status.items())), "file_digest": FILE_DIGEST}


def _update(context: Context, change: Change) -> dict[str, Any]:
    """Read and decode the images of a delivery; the entries of deleted and of relabelled ones change too."""
    size, run, group = context.known, context.run, f"{change.mark}-block"
    if not any(name.startswith(f"{group}-") for name in run.marked("images")):
        run.grow_array("images", size.n)
    spec = standard_spec(context.settings.images, size.height, size.width)
    parts = by_block(np.union1d(change.added, change.told), size.rows)
    keys = [f"{int(rows[0]) // size.rows:06d}" for rows in parts]
    calls = [(rows[np.isin(rows, change.added)], spec, context.source_options) for rows in parts]
    context.engine.each("images", group, keys, calls, renew_block, alone=partial(renew_block, alone=True))
    status = Counter(run.read_table("images", ["status"])["status"].to_pylist())
    status.pop(DELETED, None)
    return {"status": dict(sorted(status.items())), "file_digest": FILE_DIGEST}


def refuse_bad(settings: Settings, run: Run, status: Mapping[str, int]) -> None:
    """End the run where more images are broken than `images.max_bad` allows, or all; the images stay done.

    Raises
    ------
    BadInputs
    """
    n = sum(status.values())
    bad = n - sum(status.get(name, 0) for name in READABLE)
    if bad > settings.images.max_bad * n:
        order = sorted(status.items(), key=lambda item: (-item[1], item[0]))
        worst = ", ".join(f"{count} {name}" for name, count in order if name not in READABLE)
        raise BadInputs(
            f"{bad} of {n} images are broken ({worst}): more than images.max_bad = {settings.images.max_bad:g}",
            f"Their reasons are in the table `images` of {run.url}. Mend the source, or raise --max-bad.",
        )
    if bad == n:
        raise BadInputs(f"none of the {n} images can be read", f"See the table `images` of {run.url}.")


def standard_block(
    run: Run, key: str, lo: int, hi: int, spec: ImageSpec, options: Mapping[str, Any], *, alone: bool = False
) -> dict[str, Any]:
    """Read and decode the rows of one block (`alone`: in child processes); write their pixels and table."""
    index = run.read_part("index", key)
    pixels, table = standardise_block(index, spec, options, alone=alone)
    run.array("images")[lo:hi] = pixels
    table = table.add_column(0, "row", index["row"])
    run.write_part("images", key, table)
    return {"rows": hi - lo, "status": dict(Counter(table["status"].to_pylist()))}


def renew_block(
    run: Run,
    key: str,
    rows: np.ndarray,
    spec: ImageSpec,
    options: Mapping[str, Any],
    *,
    alone: bool = False,
) -> dict[str, Any]:
    """Read and decode some rows (ascending) of one block; bring its part of the table in line with the index."""
    index = run.read_part("index", key)
    at = index["row"].to_numpy()
    parts = [run.read_part("images", key)] if key in run.parts("images") else []
    if len(rows):
        pixels, fresh = standardise_block(index.take(pa.array(rows - at[0])), spec, options, alone=alone)
        run.put_rows("images", rows, pixels)
        fresh = fresh.add_column(0, "row", pa.array(rows))
        parts = [*(part.filter(pa.array(~np.isin(part["row"].to_numpy(), rows))) for part in parts), fresh]
    table = pa.concat_tables(parts).sort_by("row")
    gone = pa.array(index["status"].to_numpy() == DELETED)
    for name, value in (("status", index["status"]), ("reason", index["reason"])):
        table = table.set_column(table.schema.get_field_index(name), name, pc.if_else(gone, value, table[name]))
    for name in ("label", "split"):
        table = table.set_column(table.schema.get_field_index(name), name, index[name])
    run.write_part("images", key, table)
    return {"rows": len(rows)}


def _need(size: Size, settings: Settings, workers: int) -> Need:
    mean = max(2_000, size.bytes // max(1, size.n))
    block = size.rows * size.pixels
    # a block's files and pixels, their compressed copy, and the decoder's full picture at the size that is let through
    photograph = 3 * min(settings.images.max_pixels, 25_000_000) if mean > 20_000 else 4_000_000
    return Need(
        blocks=size.blocks,
        read=size.bytes,
        write=size.n * (size.pixels + 150),
        task=3 * block + 2 * size.rows * mean + photograph + READ_BYTES,
        process=min(LAKE_CACHE_BYTES, size.bytes or LAKE_CACHE_BYTES),
        driver=1_000 * size.blocks,
    )


STAGE = Stage(
    name="images",
    version=2,  # 2: file digests are BLAKE3
    reads=("index",),
    settings=(
        "images.size",
        "images.mode",
        "images.filter",
        "images.fit",
        "images.draft",
        "images.max_pixels",
        "images.max_bytes",
        "images.max_seconds",
        "images.flat_std",
    ),
    leaves=("tables/images", "arrays/images"),
    run=_run,
    need=_need,
    versions=lambda settings: decoder_versions(),
    update=_update,
)
