"""Wavelet coefficients of every image: the tall matrix W."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskim.plugins import find, transform_of
from daskim.renewal import renew_rows
from daskim.settings import Settings
from daskim.stages import Change, Context, Need, Size, Stage
from daskim.store import Run
from daskim.transforms import Transform

__all__ = ["STAGE"]


def _run(context: Context) -> dict[str, Any]:
    size = context.known
    transform = transform_of(context.settings.wavelets, (size.height, size.width, size.channels))
    for note in transform.notes:
        context.say(f"wavelets: {note}")
    if not context.run.marked("wavelets"):
        attributes = {"scale": transform.scale}
        context.run.create_array("wavelets", (size.n, transform.columns), transform.dtype, size.rows, attributes)
    context.engine.materialise("wavelets", "block", coefficients_of(context.run, size, transform), "wavelets")
    return {"columns": transform.columns, "scale": transform.scale, "exact": transform.exact, "notes": transform.notes}


def coefficients_of(run: Run, size: Size, transform: Transform) -> Any:
    """W of all images, a dask array of shape (n, d) over the stored pixels, one chunk a block."""
    import dask.array as da  # half a second, which no command needs before its first blocks

    images = da.from_zarr(run.array("images"), chunks=(size.rows, -1, -1, -1))
    return images.map_blocks(
        transform,
        dtype=transform.dtype,
        drop_axis=[1, 2, 3],
        new_axis=[1],
        chunks=(images.chunks[0], (transform.columns,)),
        meta=np.empty((0, 0), dtype=transform.dtype),
    )


def _update(context: Context, change: Change) -> dict[str, Any]:
    size = context.known
    transform = transform_of(context.settings.wavelets, (size.height, size.width, size.channels))
    renew_rows(context.engine, "wavelets", f"{change.mark}-block", change.added, size.n, "wavelets", transform)
    return context.run.facts("wavelets")


def _need(size: Size, settings: Settings, workers: int) -> Need:
    coefficients = size.columns * size.itemsize
    return Need(
        blocks=size.blocks,
        read=size.n * size.pixels,
        write=size.n * coefficients,
        task=size.rows * (2 * size.pixels + 3 * coefficients) + 256 * size.pixels * 16,
        driver=1_000 * size.blocks,
    )


STAGE = Stage(
    name="wavelets",
    version=1,
    reads=("images",),
    settings=("wavelets",),
    leaves=("arrays/wavelets",),
    run=_run,
    need=_need,
    versions=lambda settings: find("transforms", settings.wavelets.transform)((8, 8, 1)).versions,
    update=_update,
)
